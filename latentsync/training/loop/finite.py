"""Skip non-finite steps; abort after too many in a row."""

import logging
from collections.abc import Callable
from pathlib import Path

from latentsync.errors import TrainingError
from latentsync.training.loop.updates import Update

logger = logging.getLogger(__name__)


class FiniteGuard:
    """Counts steps that were skipped because their loss or gradient is not finite.

    Args:
        limit: this many in a row abort the run.
        skipped: so far, in a run that is resumed.

    Attributes:
        skipped: over the whole run.
    """

    def __init__(self, limit: int, skipped: int = 0) -> None:
        self.limit = limit
        self.skipped = skipped
        self._in_row = 0

    def note(self, step: int, update: Update, last_good: Callable[[], Path | None]) -> None:
        """Count a step.

        Args:
            step: its number.
            update: its result.
            last_good: finds the newest state of the run, for the message.

        Raises:
            TrainingError: it is one too many in a row.
        """
        if update.applied:
            self._in_row = 0
            return
        self.skipped += 1
        self._in_row += 1
        terms = ", ".join(f"{name} {value:.5g}" for name, value in update.terms.items())
        what = f"losses: {terms}; gradient norm {update.grad_norm:.5g}"
        logger.warning("Step %d is skipped: its loss or gradient is not finite (%s).", step, what)
        if self._in_row >= self.limit:
            newest = last_good()
            good = f"The last good state is {str(newest)!r}." if newest else "No state was saved yet."
            raise TrainingError(
                f"Up to step {step}, {self._in_row} steps in a row had a loss or gradient that is not finite ({what}). "
                f"{good} Lower the learning rate, or check the data and mixed_precision; then start the same command "
                "again to resume from there."
            )
