"""Where the time goes: seconds per named stage, on the host and on the device, without making either wait."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import record_function

STAGE_PREFIX = "stage:"
"""Begins the names of a profiler's ranges that are stages."""


class StageClock:
    """Adds up the seconds spent in named stages; stages may run in several threads but, in one thread, not nest.

    Work queued on a CUDA device is timed by events on its stream, which are read only in `seconds`, so timing never
    synchronises. Each stage is a range ``stage:<name>`` of torch's profiler where one is recording.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._lock = threading.Lock()

    @contextmanager
    def host(self, name: str) -> Iterator[None]:
        """Time work that runs on the host."""
        start = time.perf_counter()
        try:
            with record_function(STAGE_PREFIX + name):
                yield
        finally:
            with self._lock:
                self._seconds[name] += time.perf_counter() - start

    @contextmanager
    def on_device(self, name: str) -> Iterator[None]:
        """Time work that is queued on the device (on the host where the device is the CPU)."""
        if self._device.type != "cuda":
            with self.host(name):
                yield
            return
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self._device)  # not the current device's, which may be another
        start.record(stream)
        try:
            with record_function(STAGE_PREFIX + name):
                yield
        finally:
            stop.record(stream)
            with self._lock:
                self._events.append((name, start, stop))

    def seconds(self) -> dict[str, float]:
        """Seconds per stage so far; waits for the device work that was timed."""
        with self._lock:
            for name, start, stop in self._events:
                if not stop.query():
                    stop.synchronize()
                self._seconds[name] += start.elapsed_time(stop) / 1000
            self._events.clear()
            return {name: round(value, 3) for name, value in self._seconds.items()}
