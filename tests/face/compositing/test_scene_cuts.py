import torch

from latentsync.face.compositing.scene_cuts import SceneCutDetector


def test_the_first_frame_and_great_changes_begin_a_scene_however_frames_are_batched():
    faces = torch.rand(9, 3, 64, 64) * 0.2
    faces[4:] += 0.5
    faces[7:] -= 0.5
    assert SceneCutDetector()(faces).tolist() == [index in (0, 4, 7) for index in range(9)]
    cuts = SceneCutDetector()
    assert torch.cat([cuts(part) for part in faces.split(2)]).tolist() == SceneCutDetector()(faces).tolist()


def test_a_moving_mouth_begins_none():
    faces = torch.zeros(4, 3, 64, 64)
    faces[1::2, :, 40:56, 20:44] = 1
    assert SceneCutDetector()(faces).tolist() == [True, False, False, False]
