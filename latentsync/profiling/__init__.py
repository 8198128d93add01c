"""Where the time goes: a clock that every run carries, and a profile of one run."""

from latentsync.profiling.clock import StageClock

__all__ = ["StageClock"]
