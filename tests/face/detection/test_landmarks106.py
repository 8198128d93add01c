import numpy as np

from latentsync.face.detection.landmarks106 import RawFace, control_points, select_published_face, widened_box


def test_control_points_match_the_published_ones(golden):
    case = golden("landmarks106_to_3")
    for landmarks, expected in zip(case.inputs["landmarks106"].numpy(), case.outputs["landmarks3"].numpy()):
        np.testing.assert_array_equal(control_points(landmarks, rounded=True), expected)
        assert np.abs(control_points(landmarks) - expected).max() <= 0.5


def test_choice_and_box_match_the_published_ones(golden):
    case = golden("face_filter")
    for setting, expected in zip(case.attrs["cases"], case.outputs["box"].tolist()):
        faces = [
            RawFace(np.array(face["bbox"], np.float32), face["score"], case.inputs[face["landmark_key"]].numpy())
            for face in setting["faces"]
        ]
        kept = select_published_face(faces)
        box = [-1] * 4 if kept is None else list(widened_box(kept, setting["width"], setting["height"]))
        assert box == expected
