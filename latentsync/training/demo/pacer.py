"""Work beside training, limited to a fraction of its time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Pacer:
    """Limits a side task to a fraction of the time: ``if pacer.due(): with pacer: ...``.

    Attributes:
        time_fraction: limit, 0 to 1, of the time since construction.
        clock: monotonic seconds.
    """

    time_fraction: float
    clock: Callable[[], float] = time.monotonic
    spent: float = 0.0
    _start: float = field(init=False)
    _entered: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._start = self.clock()

    def due(self) -> bool:
        """Whether the side task is below its limit."""
        return self.spent < self.time_fraction * (self.clock() - self._start)

    def __enter__(self) -> None:
        self._entered = self.clock()

    def __exit__(self, *_: object) -> None:
        self.spent += self.clock() - self._entered
