"""Sample order: a pure function of the seed, the epoch and the index within it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latentsync.data.sampling.samples import SampleKey
from latentsync.data.sampling.seeding import epoch_generator
from latentsync.errors import DataError


class EpochSampler:
    """Shuffles ``clips * repeats`` samples in each epoch; every clip appears ``repeats`` times.

    Args:
        clips: number of clips.
        repeats: samples per clip and epoch.
        seed: of the run.
    """

    def __init__(self, clips: int, repeats: int, seed: int) -> None:
        self.clips, self.repeats, self.seed = clips, repeats, seed
        self._shuffled: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.clips * self.repeats

    def clip_index(self, epoch: int, index: int) -> int:
        """Index of the clip of sample ``index`` in an epoch."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = (epoch, epoch_generator(self.seed, epoch).permutation(len(self)))
        return int(self._shuffled[1][index]) % self.clips

    def key(self, epoch: int, index: int) -> SampleKey:
        """Key of sample ``index`` in an epoch."""
        return SampleKey(epoch, index, epoch * len(self) + index)


@dataclass(frozen=True)
class BatchPartition:
    """Partition of an epoch's samples into batches and over processes.

    Attributes:
        samples: number of samples in an epoch; an incomplete last batch is dropped.
        global_batch_size: samples per step over all processes.
        rank: of this process.
        world_size: number of processes.
    """

    samples: int
    global_batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Raises DataError if the batch size is not divisible by the processes or an epoch has no full batch."""
        if (
            self.global_batch_size < 1
            or not 0 <= self.rank < self.world_size
            or self.global_batch_size % self.world_size
        ):
            raise DataError(
                f"A global batch of {self.global_batch_size} cannot be split over {self.world_size} process(es) (this "
                f"is rank {self.rank}). Choose a batch size that is a multiple of the number of processes."
            )
        if self.steps < 1:
            raise DataError(
                f"An epoch has {self.samples} sample(s), fewer than the batch of {self.global_batch_size}. Use more "
                "clips, a smaller batch size, or more windows per clip (windows_per_clip)."
            )

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return self.samples // self.global_batch_size

    def batches(self, first: int) -> Iterator[range]:
        """Yield the epoch indices of this process's samples, batch by batch, starting with batch ``first``."""
        for start in range(first * self.global_batch_size, self.steps * self.global_batch_size, self.global_batch_size):
            yield range(start + self.rank, start + self.global_batch_size, self.world_size)
