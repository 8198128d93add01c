"""The batches of a validation, read anew each time: always the same, and never all in memory."""

from collections.abc import Callable, Sequence
from typing import Any, overload

from latentsync.data.clip_dataset import ClipDataset
from latentsync.data.sampling.epoch_sampler import EpochSampler
from latentsync.data.sampling.samples import SampleKey


def fixed_keys(order: EpochSampler, batch_size: int, index: int) -> list[SampleKey]:
    """Samples of batch number ``index``: those of the first epoch one after the other, then of the next ones."""
    numbers = range(index * batch_size, (index + 1) * batch_size)
    return [order.key(*divmod(number, len(order))) for number in numbers]


class FixedSet(Sequence[Any]):
    """The first batches of a data set's first epoch; a small set gives its samples again in the next epochs' orders.

    Args:
        dataset: where samples come from.
        batch_size: samples of a batch.
        count: batches.
        record_problems: told the clips that could not be used on the way to a batch: path -> reason.
    """

    def __init__(
        self, dataset: ClipDataset[Any], batch_size: int, count: int, record_problems: Callable[[dict[str, str]], None]
    ) -> None:
        self.dataset, self.batch_size, self.num_batches, self.record_problems = (
            dataset,
            batch_size,
            count,
            record_problems,
        )

    def __len__(self) -> int:
        return self.num_batches

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One batch, or several that are read when they are asked for."""
        if isinstance(index, slice):
            return _Part(self, range(self.num_batches)[index])
        if not 0 <= index < self.num_batches:
            raise IndexError(index)
        keys = fixed_keys(self.dataset.order, self.batch_size, index)
        batch = self.dataset.collate([self.dataset[key] for key in keys])
        self.record_problems(batch.problems)
        return batch


class _Part(Sequence[Any]):
    def __init__(self, whole: FixedSet, indices: range) -> None:
        self.whole, self.indices = whole, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.whole[self.indices[index]]
