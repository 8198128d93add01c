"""The batches of a validation, read anew each time: always the same, and never all in memory."""

from collections.abc import Callable, Sequence
from typing import Any, overload

from latentsync.data.clip_dataset import ClipDataset
from latentsync.data.sampling.order import EpochOrder
from latentsync.data.sampling.samples import SampleKey


def fixed_keys(order: EpochOrder, batch_size: int, place: int) -> list[SampleKey]:
    """Samples of batch number ``place``: those of the first epoch one after the other, then of the next ones."""
    numbers = range(place * batch_size, (place + 1) * batch_size)
    return [order.key(*divmod(number, len(order))) for number in numbers]


class FixedSet(Sequence[Any]):
    """The first batches of a data set's first epoch; a small set gives its samples again in the next epochs' orders.

    Args:
        dataset: where samples come from.
        batch_size: samples of a batch.
        count: batches.
        note: told the clips that could not be used on the way to a batch: path -> reason.
    """

    def __init__(
        self, dataset: ClipDataset[Any], batch_size: int, count: int, note: Callable[[dict[str, str]], None]
    ) -> None:
        self.dataset, self.batch_size, self.num_batches, self.note = dataset, batch_size, count, note

    def __len__(self) -> int:
        return self.num_batches

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        """One batch, or several that are read when they are asked for."""
        if isinstance(place, slice):
            return _Part(self, range(self.num_batches)[place])
        if not 0 <= place < self.num_batches:
            raise IndexError(place)
        keys = fixed_keys(self.dataset.order, self.batch_size, place)
        batch = self.dataset.collate([self.dataset[key] for key in keys])
        self.note(batch.problems)
        return batch


class _Part(Sequence[Any]):
    def __init__(self, whole: FixedSet, places: range) -> None:
        self.whole, self.places = whole, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        return self.whole[self.places[place]]
