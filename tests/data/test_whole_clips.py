"""Whole clips: all in order, unusable ones with the reason."""

import json
import os
from pathlib import Path

import pytest
import torch

from latentsync.data.clips.clip_reader import ClipReader
from latentsync.data.clips.inspection import ClipInfo, ClipInspector, ClipRules
from latentsync.data.whole_clips import read_whole_clips
from latentsync.errors import DataError
from tests.data.corpus import SIDE, bad_clips, good_clip, numbers

MOUTH = [[0.1, 0.2]] * 60
SIDECARS = {
    "valid": (json.dumps({"mouth": MOUTH}), (60, 2)),
    "missing": ("{}", (0, 0)),
    "foreign": ("[1, 2, 3]", (0, 0)),
    "odd": (json.dumps({"mouth": {"open": True}}), (0, 0)),
    "ragged": (json.dumps({"mouth": [[1, 2], [3]]}), (0, 0)),
    "flat": (json.dumps({"mouth": [1, 2]}), (0, 0)),
    "damaged": ("{", (0, 0)),
}


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_are_read_whole_and_in_order_with_reasons_for_unusable_ones(tmp_path: Path, workers: int) -> None:
    bad = bad_clips(tmp_path / "bad")
    good = [good_clip(tmp_path / f"{number}.mp4", 60 + number, seed=number) for number in range(3)]
    clips = [good[2], *bad.values(), good[0], good[1]]
    reader = ClipReader()
    results = list(read_whole_clips(clips, SIDE, ClipInspector(reader, ClipRules(48)), reader, workers))
    assert [clip.clip for clip in results] == [str(clip) for clip in clips]
    for clip, count in zip((results[0], *results[-2:]), (62, 60, 61)):
        assert clip.problem == "" and clip.frames.dtype == torch.uint8
        assert numbers(clip.frames.numpy()) == list(range(count))
        assert torch.equal(clip.mel, reader.mel(Path(clip.clip)))
    for word, clip in zip(bad, results[1:-2]):
        assert word in clip.problem and len(clip.frames) == 0


def test_mouth_curves_are_read_from_sidecars_that_have_them(tmp_path: Path) -> None:
    clips = [good_clip(tmp_path / f"{name}.mp4") for name in SIDECARS]
    for clip, (content, _) in zip(clips, SIDECARS.values()):
        clip.with_suffix(".json").write_text(content)
    reader = ClipReader()
    results = list(read_whole_clips(clips, SIDE, ClipInspector(reader, ClipRules(48)), reader, 0))
    assert [clip.problem for clip in results] == [""] * len(SIDECARS)
    assert [tuple(clip.mouth.shape) for clip in results] == [shape for _, shape in SIDECARS.values()]
    torch.testing.assert_close(results[0].mouth, torch.tensor(MOUTH))


class KillingInspector(ClipInspector):
    """Kills the calling process, as the OOM killer does."""

    def require(self, clip: Path) -> ClipInfo:
        os._exit(1)


def test_killed_worker_raises_data_error_with_advice(tmp_path: Path) -> None:
    reader = ClipReader()
    with pytest.raises(DataError, match="was killed.*use fewer workers"):
        list(read_whole_clips([tmp_path / "a.mp4"], SIDE, KillingInspector(reader, ClipRules(48)), reader, 1))
