"""The loader: the same order for any number of processes and workers, and starts in mid-epoch."""

import multiprocessing

import pytest
import torch

from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.data.unet_dataset import UNetDataset, UNetSampling
from latentsync.errors import ConfigError, DataError
from tests.data.corpus import SIDE, bad_clips, good_clip

OPTIONS = ClipDatasetOptions(num_frames=4, resolution=SIDE, seed=3, windows_per_clip=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    good = [good_clip(folder / f"{number}.mp4", count=20, seed=number) for number in range(5)]
    return [*good, bad_clips(folder / "bad")["damaged"]]


def same(first, second):
    return (
        first.clips == second.clips
        and torch.equal(first.gt_frames, second.gt_frames)
        and torch.equal(first.ref_frames, second.ref_frames)
        and torch.equal(first.mel, second.mel)
        and torch.equal(first.sample_ids, second.sample_ids)
        and first.problems == second.problems
    )


def test_iteration_can_start_in_mid_epoch(clips):
    source = BatchLoader(UNetDataset(clips, OPTIONS, UNetSampling(with_mel=True)), LoaderOptions(global_batch_size=3))
    assert source.steps_per_epoch == 4
    whole = list(source.batches(1, 0))
    assert len(whole) == 4
    for first in range(5):
        rest = list(source.batches(1, first))
        assert len(rest) == 4 - first
        assert all(same(a, b) for a, b in zip(rest, whole[first:]))
    assert not same(whole[0], next(iter(source.batches(2, 0))))
    assert list(source.problems()) == [str(clips[-1])]


class Recording(UNetDataset):
    """Records which indices of an epoch are requested."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.requested = []

    def __getitem__(self, key):
        self.requested.append(key.index)
        return super().__getitem__(key)


def test_batches_before_the_start_are_not_read(clips):
    dataset = Recording(clips, OPTIONS)
    list(BatchLoader(dataset, LoaderOptions(global_batch_size=3)).batches(0, 2))
    assert dataset.requested == list(range(6, 12))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_partition_the_batches_of_one_process(clips, world):
    def all_of(rank, world):
        dataset = SyncNetDataset(clips, OPTIONS)
        return list(BatchLoader(dataset, LoaderOptions(4, rank, world)).batches(0, 0))

    alone = all_of(0, 1)
    parts = [all_of(rank, world) for rank in range(world)]
    for step, batch in enumerate(alone):
        step_parts = [part[step] for part in parts]
        ids = torch.cat([part_batch.sample_ids for part_batch in step_parts])
        order = ids.argsort()
        assert torch.equal(ids[order], batch.sample_ids)
        assert torch.equal(torch.cat([part_batch.frames for part_batch in step_parts])[order], batch.frames)
        assert torch.equal(torch.cat([part_batch.shifts for part_batch in step_parts])[order], batch.shifts)


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_give_the_same_batches_as_no_workers(clips, start_method):
    dataset = UNetDataset(clips, OPTIONS, UNetSampling(with_mel=True))
    expected = [list(BatchLoader(dataset, LoaderOptions(3)).batches(epoch, 0)) for epoch in range(2)]
    before = set(multiprocessing.active_children())
    source = BatchLoader(dataset, LoaderOptions(3, workers=2, start_method=start_method))
    # Abandoned in mid-epoch, as by a run that reaches its last step.
    assert same(next(source.batches(0, 0)), expected[0][0])
    state = torch.random.get_rng_state()
    for epoch in (1, 0):
        assert all(same(a, b) for a, b in zip(source.batches(epoch, 1), expected[epoch][1:], strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(source.problems()) == [str(clips[-1])]
    source.close()
    assert set(multiprocessing.active_children()) <= before


def test_worker_error_has_the_same_message_as_without_workers(tmp_path):
    bad = list(bad_clips(tmp_path).values())
    dataset = UNetDataset(bad, ClipDatasetOptions(num_frames=8, resolution=SIDE))
    for workers in (0, 1):
        source = BatchLoader(dataset, LoaderOptions(2, workers=workers, start_method="fork"))
        with pytest.raises(DataError, match=r"^6 clips were tried for one sample") as caught:
            next(source.batches(0, 0))
        assert "Traceback" not in str(caught.value)
        source.close()


def test_invalid_batch_sizes_and_workers_are_refused(clips):
    dataset = UNetDataset(clips, OPTIONS)
    with pytest.raises(DataError, match="fewer than the batch of 13"):
        BatchLoader(dataset, LoaderOptions(13))
    with pytest.raises(DataError, match="multiple"):
        BatchLoader(dataset, LoaderOptions(4, 0, 3))
    with pytest.raises(ConfigError, match="workers"):
        LoaderOptions(4, workers=-1)
