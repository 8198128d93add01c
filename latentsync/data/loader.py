"""Batches of a data set for one process of a training run, prefetched by worker processes."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from latentsync.data.clip_dataset import ClipDataset
from latentsync.data.sampling.epoch_sampler import BatchPartition
from latentsync.data.sampling.samples import SampleKey
from latentsync.data.workers import StartMethod, explain_worker_exit, worker_context
from latentsync.errors import ConfigError, DataError, LatentSyncError

BatchT = TypeVar("BatchT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoaderOptions:
    """Options of `BatchLoader`.

    Attributes:
        global_batch_size: samples per step over all processes.
        rank: of this process.
        world_size: number of processes; must divide the global batch size.
        workers: number of worker processes; 0 reads in this process.
        prefetch: batches prefetched by each worker.
        start_method: how workers are started, see `worker_context`.
    """

    global_batch_size: int
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    prefetch: int = 2
    start_method: StartMethod = "forkserver"

    def __post_init__(self) -> None:
        """Raises ConfigError on a value out of range."""
        if self.workers < 0 or self.prefetch < 1:
            raise ConfigError(
                f"workers must be 0 or more and prefetch 1 or more, got {self.workers} and {self.prefetch}."
            )


class BatchLoader(Generic[BatchT]):
    """The batches of this process, epoch by epoch.

    The samples of batch k of an epoch depend only on the data set, its seed and k. Processes take interleaved slices of
    it (``rank``, ``rank + world_size``, ...), and a run resumed in mid-epoch does not read the batches before. The
    global random state of the process is neither used nor changed.

    Workers start with the first batch and persist over epochs; `close` stops them. Only one iteration may be active.

    Args:
        dataset: source of the samples.
        options: see `LoaderOptions`.

    Raises:
        DataError: an epoch is smaller than a batch, or the batch size is not divisible by the number of processes.
    """

    def __init__(self, dataset: ClipDataset[BatchT], options: LoaderOptions) -> None:
        self.partition = BatchPartition(len(dataset), options.global_batch_size, options.rank, options.world_size)
        self._schedule = _EpochBatchSampler(dataset, self.partition)
        self._problems: dict[str, str] = {}
        extra: dict[str, Any] = {}
        if options.workers:
            extra = {
                "num_workers": options.workers,
                "prefetch_factor": options.prefetch,
                "multiprocessing_context": worker_context(options.start_method),
                "persistent_workers": True,
            }
        self._loader = DataLoader(
            _BatchDataset(dataset),
            batch_size=None,
            sampler=self._schedule,
            collate_fn=_identity_collate,
            # Otherwise the loader draws from the global generator whenever an iterator is created.
            generator=torch.Generator(),
            **extra,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch; at least 1."""
        return self.partition.steps

    def batches(self, epoch: int, first: int) -> Iterator[BatchT]:
        """Yield the batches of an epoch, starting with batch ``first``.

        Raises:
            DataError: too many clips in a row are unusable, or a worker was killed.
            LatentSyncError: any other error raised by the data set.
        """
        self._schedule.epoch, self._schedule.first = epoch, first
        batches = iter(self._loader)
        while True:
            with explain_worker_exit():
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, _WorkerFailure):
                raise batch.kind(batch.message)
            self.record_problems(batch.problems)
            yield batch

    def problems(self) -> Mapping[str, str]:
        """Unusable clips encountered so far: path -> reason."""
        return dict(self._problems)

    def close(self) -> None:
        """Stop the workers; a later iteration starts new ones."""
        self._loader._iterator = None

    def record_problems(self, problems: Mapping[str, str]) -> None:
        """Record unusable clips and log a warning once for each."""
        for clip, reason in problems.items():
            if clip not in self._problems:
                logger.warning("clip skipped: %s: %s", clip, reason)
            self._problems[clip] = reason


@dataclass(frozen=True)
class _WorkerFailure:
    """A LatentSyncError passed from a worker to the main process, without the worker's stack trace."""

    kind: type[LatentSyncError]
    message: str


class _BatchDataset(Dataset[Any]):
    """Loads a whole batch per item, so that all samples of a batch come from the same worker."""

    def __init__(self, dataset: ClipDataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: list[SampleKey]) -> Any:
        try:
            return self.dataset.collate([self.dataset[key] for key in keys])
        except DataError as error:
            return _WorkerFailure(DataError, str(error))
        except LatentSyncError as error:
            return _WorkerFailure(type(error), str(error))


class _EpochBatchSampler:
    """Sampler of the sample keys of each batch; `epoch` and `first` are set before each iteration."""

    def __init__(self, dataset: ClipDataset[Any], partition: BatchPartition) -> None:
        self._order, self._partition = dataset.order, partition
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self.epoch
        for positions in self._partition.batches(self.first):
            yield [self._order.key(epoch, position) for position in positions]

    def __len__(self) -> int:
        return max(0, self._partition.steps - self.first)


def _identity_collate(batch: Any) -> Any:
    return batch
