"""Validation batches: always the same, read from disk on each access instead of kept in memory."""

from collections.abc import Callable, Sequence
from typing import Any, overload

from latentsync.data.clip_dataset import ClipDataset
from latentsync.data.sampling.epoch_sampler import EpochSampler
from latentsync.data.sampling.samples import SampleKey


def fixed_keys(order: EpochSampler, batch_size: int, index: int) -> list[SampleKey]:
    """Sample keys of batch ``index``: consecutive samples of the first epoch, continuing with later epochs."""
    positions = range(index * batch_size, (index + 1) * batch_size)
    return [order.key(*divmod(position, len(order))) for position in positions]


class FixedSet(Sequence[Any]):
    """The first `count` batches of a data set; small sets repeat their samples in the order of the next epochs.

    Args:
        dataset: source of the samples.
        batch_size: samples per batch.
        count: number of batches.
        record_problems: called with the unusable clips encountered for each batch: path -> reason.
    """

    def __init__(
        self, dataset: ClipDataset[Any], batch_size: int, count: int, record_problems: Callable[[dict[str, str]], None]
    ) -> None:
        self.dataset, self.batch_size, self.num_batches = dataset, batch_size, count
        self.record_problems = record_problems

    def __len__(self) -> int:
        return self.num_batches

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one batch, or a lazy sequence of batches for a slice."""
        if isinstance(index, slice):
            return _FixedSubset(self, range(self.num_batches)[index])
        if not 0 <= index < self.num_batches:
            raise IndexError(index)
        keys = fixed_keys(self.dataset.order, self.batch_size, index)
        batch = self.dataset.collate([self.dataset[key] for key in keys])
        self.record_problems(batch.problems)
        return batch


class _FixedSubset(Sequence[Any]):
    def __init__(self, parent: FixedSet, indices: range) -> None:
        self.parent, self.indices = parent, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.parent[self.indices[index]]
