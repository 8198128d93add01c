"""In which order samples come: a function of the seed, the epoch and the place in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latentsync.data.sampling.samples import SampleKey
from latentsync.data.sampling.seeding import epoch_generator
from latentsync.errors import DataError


class EpochSampler:
    """Shuffles ``clips * repeats`` samples anew each epoch; every clip comes ``repeats`` times.

    Args:
        clips: how many there are.
        repeats: samples per clip and epoch.
        seed: of the run.
    """

    def __init__(self, clips: int, repeats: int, seed: int) -> None:
        self.clips, self.repeats, self.seed = clips, repeats, seed
        self._shuffled: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.clips * self.repeats

    def clip_index(self, epoch: int, index: int) -> int:
        """Number of the clip at a place of an epoch."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = (epoch, epoch_generator(self.seed, epoch).permutation(len(self)))
        return int(self._shuffled[1][index]) % self.clips

    def key(self, epoch: int, index: int) -> SampleKey:
        """Name of the sample at a place of an epoch."""
        return SampleKey(epoch, index, epoch * len(self) + index)


@dataclass(frozen=True)
class BatchPartition:
    """How an epoch's samples are dealt out to processes.

    Attributes:
        samples: of an epoch; those that do not fill a batch are left out.
        global_batch_size: samples of one step over all processes.
        rank: of this process.
        world_size: number of processes.
    """

    samples: int
    global_batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Raises DataError where not one batch comes out."""
        if (
            self.global_batch_size < 1
            or not 0 <= self.rank < self.world_size
            or self.global_batch_size % self.world_size
        ):
            raise DataError(
                f"A global batch of {self.global_batch_size} cannot be shared by {self.world_size} process(es) (this "
                f"is number {self.rank}). Choose a batch size that is a multiple of the number of processes."
            )
        if self.steps < 1:
            raise DataError(
                f"An epoch has {self.samples} sample(s), fewer than the batch of {self.global_batch_size}. Give more "
                "clips, a smaller batch, or more windows per clip (windows_per_clip)."
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.samples // self.global_batch_size

    def batches(self, first: int) -> Iterator[range]:
        """Places in the epoch of this process's samples, batch by batch from number ``first`` on."""
        for start in range(first * self.global_batch_size, self.steps * self.global_batch_size, self.global_batch_size):
            yield range(start + self.rank, start + self.global_batch_size, self.world_size)
