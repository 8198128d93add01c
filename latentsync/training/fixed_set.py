"""The batches of a validation, read anew each time: always the same, and never all in memory."""

from collections.abc import Sequence
from typing import Any, overload

from latentsync.data.clip_dataset import ClipDataset


class FixedSet(Sequence[Any]):
    """The first batches of a data set's first epoch; a small set gives its samples again in the next epochs' orders.

    Args:
        dataset: where samples come from.
        batch_size: samples of a batch.
        count: batches.
    """

    def __init__(self, dataset: ClipDataset[Any], batch_size: int, count: int) -> None:
        self.dataset, self.batch_size, self.num_batches = dataset, batch_size, count

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
        length = len(self.dataset)
        numbers = range(place * self.batch_size, (place + 1) * self.batch_size)
        keys = [self.dataset.order.key(number // length, number % length) for number in numbers]
        return self.dataset.collate([self.dataset[key] for key in keys])


class _Part(Sequence[Any]):
    def __init__(self, whole: FixedSet, places: range) -> None:
        self.whole, self.places = whole, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        return self.whole[self.places[place]]
