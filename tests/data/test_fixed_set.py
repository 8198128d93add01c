"""Validation batches: always the same, the requested number, with unusable clips recorded."""

from pathlib import Path

import pytest
import torch

from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.fixed_set import FixedSet
from latentsync.data.unet_dataset import UNetDataset
from tests.data.corpus import SIDE, good_clip


def test_small_set_continues_with_later_epochs(tmp_path: Path) -> None:
    clips = [good_clip(tmp_path / f"{number}.mp4", 30, seed=number) for number in range(2)]
    dataset = UNetDataset(clips, ClipDatasetOptions(num_frames=8, resolution=SIDE, windows_per_clip=2))
    fixed = FixedSet(dataset, 3, 4, lambda problems: None)
    batches = list(fixed)
    assert len(fixed) == len(batches) == 4
    assert [batch.sample_ids.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    for position, batch_again in enumerate(fixed[1::2]):
        assert torch.equal(batch_again.gt_frames, batches[1 + 2 * position].gt_frames)
    assert len(fixed[1::2]) == 2 and len(fixed[4:]) == 0
    starts = torch.cat([batch.starts for batch in batches])
    assert len(starts.unique()) > 4
    with pytest.raises(IndexError):
        fixed[4]


def test_unusable_clips_are_reported(tmp_path: Path) -> None:
    short = good_clip(tmp_path / "short.mp4", 10)
    clips = [good_clip(tmp_path / "long.mp4", 30), short]
    problems: dict[str, str] = {}
    fixed = FixedSet(UNetDataset(clips, ClipDatasetOptions(num_frames=8, resolution=SIDE)), 2, 1, problems.update)
    assert fixed[0].clips == [str(clips[0])] * 2
    assert list(problems) == [str(short)] and "too short" in problems[str(short)]
