"""Training by the clock: how much of a stage's time is gone, and the learning rate that goes with it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from latentsync.errors import ConfigError


@dataclass
class TimeBudget:
    """A stage's wall-clock allowance; it starts when it is made.

    Attributes:
        seconds: the allowance, above 0.
        max_steps: ends the stage earlier, 0 = no limit; tests use it.
        clock: gives seconds that only grow.
    """

    seconds: float
    max_steps: int = 0
    clock: Callable[[], float] = time.monotonic
    steps: int = 0
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ConfigError(f"Time budget: got {self.seconds} s, expected more than 0")
        self._start = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._start

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 to 1: of the time, or of the steps where that is further on."""
        by_steps = self.steps / self.max_steps if self.max_steps else 0.0
        return min(1.0, max(self.elapsed / self.seconds, by_steps))

    def step(self) -> bool:
        """Count one step; False once the budget is used up, and then the step must not be made."""
        if self.fraction >= 1.0:
            return False
        self.steps += 1
        return True


@dataclass
class Every:
    """True once per interval of seconds: ``if log_due():``.

    Attributes:
        seconds: length of the interval; the first one ends that long after construction.
        clock: gives seconds that only grow.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def __call__(self) -> bool:
        """Whether the interval is over; if so the next one starts."""
        if self.clock() - self._last < self.seconds:
            return False
        self._last = self.clock()
        return True


@dataclass
class Pacer:
    """Keeps a side task to a share of the time: ``if pacer.due(): with pacer: ...``.

    Attributes:
        time_fraction: of the time since construction that the side task may take, 0 to 1.
        clock: gives seconds that only grow.
    """

    time_fraction: float
    clock: Callable[[], float] = time.monotonic
    spent: float = 0.0
    _start: float = field(init=False)
    _entered: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._start = self.clock()

    def due(self) -> bool:
        """Whether the side task has had less than its share so far."""
        return self.spent < self.time_fraction * (self.clock() - self._start)

    def __enter__(self) -> None:
        self._entered = self.clock()

    def __exit__(self, *_: object) -> None:
        self.spent += self.clock() - self._entered


def one_cycle(fraction: float, warm_up: float = 0.05, final: float = 0.01) -> float:
    """Learning-rate factor over a stage: linear rise, then half a cosine down to ``final``.

    Args:
        fraction: share of the stage that is over, 0 to 1.
        warm_up: share of the stage spent rising.
        final: factor at the end.

    Returns:
        Factor between 0 and 1.
    """
    if fraction < warm_up:
        return max(fraction / warm_up, 1e-3)
    progress = min((fraction - warm_up) / (1.0 - warm_up), 1.0)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
