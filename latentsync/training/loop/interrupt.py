"""Graceful stop on a signal, between two steps."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A terminal and a launcher both pass one Ctrl-C on: what follows so soon is the same request.
_ECHO_SECONDS = 5.0


class StopRequest:
    """While entered, notes SIGTERM and SIGINT instead of ending the process; one more, seconds later, acts as ever.

    Outside the main thread, where Python allows no handlers, signals stay as they are.

    Attributes:
        name: of the signal that has come; None = none.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._handlers: dict[int, Any] = {}
        self._noted = 0.0

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.name is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        # No logging here: a handler may interrupt a log call half-way.
        if self.name is None:
            self.name, self._noted = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._noted > _ECHO_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers = {}
