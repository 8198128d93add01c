"""Learning-rate factors: functions of the progress of a run, so that resuming restores no scheduler state."""

import math

from latentsync.training.loop.options import Schedule

_FLOOR = 1e-3  # of a warm-up by fraction, whose first step comes at progress 0


def lr_factor(schedule: Schedule, warmup: int, step: int, progress: float, warmup_fraction: float = 0.0) -> float:
    """Factor of the peak learning rate for a step.

    Args:
        schedule: how the rate falls.
        warmup: steps in which it rises.
        step: steps done so far.
        progress: fraction of the run that is over, 0 to 1.
        warmup_fraction: fraction of the run in which the rate rises, below 1; the fall begins after it.

    Returns:
        0 to 1.
    """
    rise = min((step + 1) / (warmup + 1), 1.0)
    progress = min(max(progress, 0.0), 1.0)
    if warmup_fraction > 0:
        rise *= min(max(progress / warmup_fraction, _FLOOR), 1.0)
        progress = max(progress - warmup_fraction, 0.0) / (1.0 - warmup_fraction)
    if schedule == "cosine":
        return rise * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "linear":
        return rise * (1.0 - progress)
    return rise


def progress_fraction(step: int, last_step: int | None, seconds: float, max_seconds: float, warmup: int = 0) -> float:
    """Fraction of a run that is over, by steps after the warm-up or by time, whichever is further.

    Args:
        step: steps done so far.
        last_step: where the run ends; None = no such limit.
        seconds: of training so far.
        max_seconds: when the run ends; 0 = no such limit.
        warmup: steps that do not count.

    Returns:
        0 to 1.
    """
    by_steps = 0.0 if last_step is None else max(step - warmup, 0) / max(last_step - warmup, 1)
    by_time = seconds / max_seconds if max_seconds > 0 else 0.0
    return min(max(by_steps, by_time), 1.0)
