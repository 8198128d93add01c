"""Frames that are read once: the same pairs as a data set that reads them anew, and light changes to them."""

import json
from pathlib import Path

import pytest
import torch

from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.fixed_set import FixedSet
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.data.syncnet_dataset import SyncNetDataset, SyncNetSampling
from latentsync.data.whole_clips import read_whole_clips
from latentsync.errors import DataError
from latentsync.training.syncnet.cached_frames import CachedFrameSource, FrameCache, FrameSampling, augment_windows
from tests.data.corpus import SIDE, bad_clips, good_clip, numbers

FRAMES, SEED = 8, 5
OPTIONS = ClipDatasetOptions(num_frames=FRAMES, resolution=SIDE, seed=SEED, windows_per_clip=4)
PAIRS = SyncNetSampling(near_negative_prob=0.5, near_shift=(2, 4))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [good_clip(folder / f"{number}.mp4", 30 + 3 * number, number, 10 * number) for number in range(3)]


def dataset_of(clips: list[Path]) -> SyncNetDataset:
    return SyncNetDataset(clips, OPTIONS, PAIRS)


def filled(clips: list[Path]) -> FrameCache:
    dataset, store = dataset_of(clips), FrameCache(CPU)
    store.fill(read_whole_clips(clips, SIDE, dataset.inspector, dataset.reader, 0), len(clips))
    return store


def source(store: FrameCache, rank: int = 0, world: int = 1) -> CachedFrameSource:
    return CachedFrameSource(store, FrameSampling(PAIRS, FRAMES, 4, SEED), 4, rank, world)


def test_pairs_are_those_of_the_data_set(clips: list[Path]) -> None:
    stored, read = source(filled(clips)), BatchLoader(dataset_of(clips), LoaderOptions(4))
    assert stored.steps_per_epoch == read.steps_per_epoch == 3
    held_out = FixedSet(dataset_of(clips), 5, 4, read.record_problems)
    pairs = [
        *(
            (ours, theirs)
            for epoch in range(2)
            for ours, theirs in zip(stored.batches(epoch, 1), read.batches(epoch, 1))
        ),
        *zip(stored.fixed(5, 4), held_out),
    ]
    assert len(pairs) == 2 * 2 + 4
    for ours, theirs in pairs:
        assert ours.clips == theirs.clips and ours.problems == {}
        for name in ("frames", "mel", "labels", "shifts", "sample_ids"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    labels = torch.cat([ours.labels for ours, _ in pairs])
    assert 0 < labels.mean() < 1


def test_processes_share_a_batch(clips: list[Path]) -> None:
    store = filled(clips)
    for whole, first, second in zip(*(source(store, *shard).batches(2, 0) for shard in ((0, 1), (0, 2), (1, 2)))):
        order = [number for pair in zip(first.sample_ids.tolist(), second.sample_ids.tolist()) for number in pair]
        assert whole.sample_ids.tolist() == order


def test_what_the_mouth_does_goes_with_the_frames_and_the_sound(tmp_path: Path) -> None:
    clip = good_clip(tmp_path / "a.mp4", 40)
    clip.with_suffix(".json").write_text(json.dumps({"mouth": [[number, 0.5] for number in range(40)]}))
    told = source(filled([clip]))
    for batch in told.batches(0, 0):
        assert batch.video_mouth_curves is not None and batch.audio_mouth_curves is not None
        for frames, seen, heard, shift in zip(
            batch.frames, batch.video_mouth_curves, batch.audio_mouth_curves, batch.shifts
        ):
            assert seen[:, 0].tolist() == numbers(frames.numpy())
            assert (seen[:, 0] - heard[:, 0]).tolist() == [float(shift)] * FRAMES
    half = source(filled([clip, good_clip(tmp_path / "b.mp4", 40, seed=1)]))
    batches = list(half.batches(0, 0))
    assert all(batch.video_mouth_curves is None for batch in batches if len(set(batch.clips)) == 2)
    assert any(len(set(batch.clips)) == 2 for batch in batches)


def test_bad_clips_are_left_out_and_named(tmp_path: Path, clips: list[Path]) -> None:
    # Two windows are enough for a pair, so the shortest two of the bad ones are good here.
    bad = {word: clip for word, clip in bad_clips(tmp_path).items() if "too short" not in word}
    store = filled([*bad.values(), *clips])
    assert store.names == [str(clip) for clip in clips]
    assert all(word in store.problems[str(clip)] for word, clip in bad.items()) and len(store.problems) == len(bad)
    with pytest.raises(DataError, match="None of the 4 clips"):
        filled(list(bad.values()))


def varied(pixels: torch.Tensor, ids: list[int]) -> torch.Tensor:
    return augment_windows(pixels, SampleRng(1, torch.tensor(ids), CPU))


def test_changes_are_those_of_the_sample_and_spare_one_window_in_five() -> None:
    pixels = torch.rand(60, 2, 3, 16, 16) * 2 - 1
    changed = varied(pixels, list(range(60)))
    assert changed.shape == pixels.shape and changed.min() >= -1 and changed.max() <= 1
    alone = torch.cat([varied(pixels[number : number + 1], [number]) for number in (3, 50)])
    torch.testing.assert_close(alone, changed[[3, 50]], atol=1e-6, rtol=0)
    spared = (changed == pixels).flatten(1).all(dim=1)
    assert 4 <= int(spared.sum()) <= 22
    assert (changed - pixels)[~spared].abs().flatten(1).max(dim=1).values.min() > 0.01


def test_all_frames_of_a_window_change_alike() -> None:
    frame = torch.nn.functional.interpolate(torch.rand(20, 3, 4, 4) - 0.5, (16, 16), mode="bilinear")
    changed = varied(frame[:, None].expand(-1, 4, -1, -1, -1), list(range(20)))
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))
    # A light change leaves the picture what it is, but for being mirrored.
    for one, before in zip(changed[:, 0], frame, strict=True):
        rows = torch.stack([one.flatten(), before.flatten(), before.flip(-1).flatten()])
        assert torch.corrcoef(rows)[0, 1:].max() > 0.7
