"""The batch stream of a run: batches per update, and the position that a resumed run continues from."""

import logging
from collections.abc import Iterator
from typing import Any

from latentsync.errors import TrainingError
from latentsync.training.loop.interrupt import StopRequest
from latentsync.training.loop.processes import ProcessGroup
from latentsync.training.loop.task import BatchSource

logger = logging.getLogger(__name__)


class Feed:
    """Draws batches from a source, equally many in every process.

    Args:
        source: of this process.
        per_update: batches per update; the last update of an epoch may have fewer.
        processes: that train together.

    Attributes:
        epoch: from 0.
        batch: batches of the epoch used so far.
        batches_per_epoch: the fewest that a process has.
    """

    def __init__(self, source: BatchSource, per_update: int, processes: ProcessGroup) -> None:
        self.source = source
        self.per_update = per_update
        self.processes = processes
        self.epoch = 0
        self.batch = 0
        self.batches_per_epoch = -int(processes.all_reduce_max([-source.steps_per_epoch])[0])
        if self.batches_per_epoch < 1:
            raise TrainingError(
                "An epoch has no batch in at least one process: give more clips, smaller batches or fewer processes."
            )
        self._batches: Iterator[Any] | None = None

    @property
    def updates_per_epoch(self) -> int:
        """Updates per epoch."""
        return -(-self.batches_per_epoch // self.per_update)

    def seek(self, epoch: int, batch: int) -> None:
        """Make this the next batch."""
        self.close()
        self.epoch, self.batch = (epoch, batch) if batch < self.batches_per_epoch else (epoch + 1, 0)

    def close(self) -> None:
        """Stop preparing batches."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = None

    def next_batches(self, stop: StopRequest) -> list[Any]:
        """The batches of the next update; none, and then in no process, if a signal came or the epoch ended early.

        Raises:
            TrainingError: a whole epoch had no batch.
        """
        wanted = min(self.per_update, self.batches_per_epoch - self.batch)
        batches = self._read(wanted, stop)
        cut_off = stop.requested and len(batches) < wanted
        minus_fewest, any_cut_off = self.processes.all_reduce_max([-len(batches), cut_off])
        if any_cut_off:
            return []
        taken = batches[: int(-minus_fewest)]
        self.batch += len(taken)
        if len(taken) < wanted:
            self._end_early()
        if self.batch >= self.batches_per_epoch:
            self.seek(self.epoch + 1, 0)
        return taken

    def _read(self, wanted: int, stop: StopRequest) -> list[Any]:
        if self._batches is None:
            self._batches = iter(self.source.batches(self.epoch, self.batch))
        batches: list[Any] = []
        try:
            while len(batches) < wanted and not stop.requested:
                batches.append(next(self._batches))
        except StopIteration:
            pass
        except Exception:
            # Ctrl-C reaches the loader's workers too; their errors are expected then.
            if not stop.requested:
                raise
        return batches

    def _end_early(self) -> None:
        if self.batch == 0:
            raise TrainingError(f"Epoch {self.epoch} had no batch. Look for unusable clips in the log.")
        logger.warning(
            "Epoch %d ended after %d of %d batches in at least one process.",
            self.epoch,
            self.batch,
            self.batches_per_epoch,
        )
        self.batch = self.batches_per_epoch
