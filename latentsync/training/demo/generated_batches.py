"""Training batches that are synthesized on the device instead of being read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from latentsync.training.loop.task import Shard

_ALONE = Shard()


class GeneratedBatches:
    """Endless random batches; see `BatchSource`.

    Args:
        draw: (number of the batch in its epoch, seed) -> a batch; the seed differs from batch to batch.
        steps_per_epoch: batches that count as an epoch.
        seed: of the run.
        shard: of this process; each draws batches of its own.
    """

    def __init__(self, draw: Callable[[int, int], Any], steps_per_epoch: int, seed: int, shard: Shard = _ALONE) -> None:
        self.draw = draw
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.shard = shard

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """See `BatchSource.batches`."""
        for number in range(first, self.steps_per_epoch):
            words = np.random.SeedSequence((self.seed, self.shard.rank, epoch, number)).generate_state(1)
            yield self.draw(number, int(words[0]))

    def problems(self) -> Mapping[str, str]:
        """None: nothing is read."""
        return {}
