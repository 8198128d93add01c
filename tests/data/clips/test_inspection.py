"""What makes a clip unusable, and that it is found out once."""

from pathlib import Path

import numpy as np
import pytest

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.face_check import FaceCheck
from latentsync.data.clips.inspection import ClipInspector, ClipRules
from latentsync.face.detection.detector import FaceDetection
from tests.data.corpus import bad_clips, good_clip


class CountingDetector:
    """Sees a face everywhere or nowhere, and writes down that it looked."""

    def __init__(self, log: Path, sees: bool) -> None:
        self.log, self.sees = log, sees

    def search(self, frame):
        pass

    def detect(self, frame, candidates=None):
        with self.log.open("a") as file:
            file.write("look\n")
        box = np.array([0, 0, frame.shape[1], frame.shape[0]], np.float32)
        return [FaceDetection(box, 0.9, np.zeros((3, 2), np.float32))] if self.sees else []

    def close(self):
        pass


def test_reasons(tmp_path):
    inspector = ClipInspector(ClipReader(), ClipRules(min_frames=48), tmp_path / "cache")
    for word, clip in bad_clips(tmp_path / "clips").items():
        for _ in range(2):
            with pytest.raises(UnusableClip, match=word):
                inspector.require(clip)
    info = inspector.require(good_clip(tmp_path / "good.mp4", count=60))
    assert (info.video_frames, info.frames, info.has_face) == (60, 60, None)
    assert info.loudness == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_the_length_needed_is_of_picture_and_sound_together(tmp_path):
    clips = bad_clips(tmp_path)
    inspector = ClipInspector(ClipReader(), ClipRules(min_frames=20))
    assert inspector.require(clips["too short: 20 frames"]).frames == 20
    assert inspector.require(clips["sound too short"]).frames == pytest.approx(20, abs=1)


@pytest.mark.parametrize("sees", [False, True])
def test_faces_are_looked_for_once(tmp_path, sees):
    log, cache = tmp_path / "looks", tmp_path / "cache"
    clip = good_clip(tmp_path / "a.mp4")

    def usable():
        faces = FaceCheck(lambda: CountingDetector(log, sees))
        inspector = ClipInspector(ClipReader(), ClipRules(48, check_faces=True), cache, faces)
        answers = []
        for _ in range(2):
            try:
                answers.append(inspector.require(clip).frames == 60)
            except UnusableClip as error:
                assert "no face" in error.reason
                answers.append(False)
        return answers

    assert usable() == [sees] * 2
    looks = log.read_text()
    assert usable() == [sees] * 2
    assert log.read_text() == looks
    # Who does not ask for faces gets the clip all the same.
    assert ClipInspector(ClipReader(), ClipRules(48), cache).require(clip).has_face is sees


def test_a_changed_file_is_judged_anew(tmp_path):
    clip = tmp_path / "a.mp4"
    inspector = ClipInspector(ClipReader(), ClipRules(48), tmp_path / "cache")
    good_clip(clip, count=20)
    with pytest.raises(UnusableClip, match="too short"):
        inspector.require(clip)
    good_clip(clip, count=60)
    assert inspector.require(clip).frames == 60
