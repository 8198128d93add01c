"""Rules for usable clips, and caching of the results."""

from pathlib import Path

import numpy as np
import pytest

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.disk_cache import DiskCache
from latentsync.data.clips.face_check import FaceCheck
from latentsync.data.clips.inspection import ClipInspector, ClipRules
from latentsync.face.detection.detector import FaceDetection
from tests.data.corpus import bad_clips, good_clip


class CountingDetector:
    """Detects a face in every image or in none, and logs each call."""

    def __init__(self, log: Path, has_face: bool) -> None:
        self.log, self.has_face = log, has_face

    def search(self, frame):
        pass

    def detect(self, frame, candidates=None):
        with self.log.open("a") as file:
            file.write("detect\n")
        box = np.array([0, 0, frame.shape[1], frame.shape[0]], np.float32)
        return [FaceDetection(box, 0.9, np.zeros((3, 2), np.float32))] if self.has_face else []

    def close(self):
        pass


def test_unusable_clips_are_rejected_with_a_reason(tmp_path):
    inspector = ClipInspector(ClipReader(), ClipRules(min_frames=48), tmp_path / "cache")
    for word, clip in bad_clips(tmp_path / "clips").items():
        for _ in range(2):
            with pytest.raises(UnusableClip, match=word):
                inspector.require(clip)
    info = inspector.require(good_clip(tmp_path / "good.mp4", count=60))
    assert (info.video_frames, info.frames, info.has_face) == (60, 60, None)
    assert info.loudness == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_minimum_length_applies_to_frames_with_audio(tmp_path):
    clips = bad_clips(tmp_path)
    inspector = ClipInspector(ClipReader(), ClipRules(min_frames=20))
    assert inspector.require(clips["too short: 20 frames"]).frames == 20
    assert inspector.require(clips["audio too short"]).frames == pytest.approx(20, abs=1)


@pytest.mark.parametrize("has_face", [False, True])
def test_face_check_runs_once_per_clip(tmp_path, has_face):
    log, cache = tmp_path / "calls", tmp_path / "cache"
    clip = good_clip(tmp_path / "a.mp4")

    def usable():
        faces = FaceCheck(lambda: CountingDetector(log, has_face))
        inspector = ClipInspector(ClipReader(), ClipRules(48, check_faces=True), cache, faces)
        answers = []
        for _ in range(2):
            try:
                answers.append(inspector.require(clip).frames == 60)
            except UnusableClip as error:
                assert "no face" in error.reason
                answers.append(False)
        return answers

    assert usable() == [has_face] * 2
    calls = log.read_text()
    assert usable() == [has_face] * 2
    assert log.read_text() == calls
    # Without the face rule the clip is usable either way.
    assert ClipInspector(ClipReader(), ClipRules(48), cache).require(clip).has_face is has_face


@pytest.mark.parametrize(
    ("record", "loudness"),
    [
        ({"video_frames": 60, "sound_seconds": 2.4, "loudness": 0.5, "has_face": None}, 0.5),
        ({"video_frames": 60, "loudness": 0.5}, 0.2 / 3**0.5),
    ],
    ids=["existing cache", "incomplete"],
)
def test_cached_records_are_used_if_complete(tmp_path, record, loudness):
    clip, reader = good_clip(tmp_path / "a.mp4"), ClipReader()
    DiskCache(tmp_path / "cache", "clip-facts 1").store_record(reader.fingerprint(clip), record)
    info = ClipInspector(reader, ClipRules(48), tmp_path / "cache").require(clip)
    assert info.loudness == pytest.approx(loudness, rel=0.1)


def test_changed_file_is_checked_again(tmp_path):
    clip = tmp_path / "a.mp4"
    inspector = ClipInspector(ClipReader(), ClipRules(48), tmp_path / "cache")
    good_clip(clip, count=20)
    with pytest.raises(UnusableClip, match="too short"):
        inspector.require(clip)
    good_clip(clip, count=60)
    assert inspector.require(clip).frames == 60
