"""Stages that run at the same time, joined by bounded queues: the slowest sets the speed, memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


class _EndOfStream:
    """Closes a queue; carries the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Prefetch(Generic[T]):
    """Runs an iterable in a thread of its own, at most ``depth`` items ahead of its reader.

    An error in the thread is raised again at the reader's next step. Leaving the ``with`` block stops the thread,
    also in the middle of the iterable, and waits for it.
    """

    def __init__(self, source: Iterable[T], depth: int, name: str) -> None:
        self._source = source
        self._queue: queue.Queue[T | _EndOfStream] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Prefetch[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _EndOfStream):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _put(self, item: T | _EndOfStream) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _run(self) -> None:
        end = _EndOfStream()
        try:
            for item in self._source:
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the reader, who raises it
            end = _EndOfStream(error)
            if not isinstance(error, Exception):
                raise
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            self._put(end)


class Sink(Generic[T]):
    """Feeds a function in a thread of its own, at most ``depth`` items behind its feeder.

    An error of the function is raised at one of the feeder's next `put`, or when the ``with`` block is left normally.
    When the block is left by an error, items still queued are dropped.
    """

    def __init__(self, consume: Callable[[T], None], depth: int, name: str) -> None:
        self._consume, self._depth = consume, depth
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._futures: deque[Future[None]] = deque()

    def __enter__(self) -> Sink[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._futures:
                self._futures.popleft().result()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def put(self, item: T) -> None:
        """Queue an item; waits while the queue is full."""
        while len(self._futures) >= self._depth or (self._futures and self._futures[0].done()):
            self._futures.popleft().result()
        self._futures.append(self._executor.submit(self._consume, item))
