"""Threads joined by queues: order, bounds, errors, and an early exit that leaves no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from latentsync.pipelines.stages import Prefetch, Sink


def test_prefetch_keeps_order_and_runs_at_most_depth_ahead() -> None:
    started: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            started.append(number)
            yield number

    with Prefetch(numbers(), depth=3, name="numbers") as items:
        for expected, number in enumerate(items):
            assert number == expected
            time.sleep(0.002)
            # three wait in the queue and one is in the thread's hands
            assert len(started) <= expected + 1 + 3 + 1
    assert started == list(range(20))


def test_prefetch_raises_the_sources_error_after_its_items() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken source")

    seen = []
    with Prefetch(broken(), depth=2, name="broken") as items, pytest.raises(ValueError, match="broken source"):
        for item in items:
            seen.append(item)
    assert seen == [1]


def test_leaving_prefetch_early_closes_the_source_and_its_thread() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    with Prefetch(endless(), depth=2, name="endless") as items:
        next(iter(items))
    assert closed.is_set()
    assert threading.active_count() == before


def test_sink_consumes_in_order_and_raises_what_its_function_raised() -> None:
    seen: list[int] = []
    with Sink(seen.append, depth=2, name="ok") as sink:
        for number in range(50):
            sink.put(number)
    assert seen == list(range(50))

    def fail(number: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Sink(fail, depth=1, name="fail") as failing:
        failing.put(1)


def test_sink_drops_what_is_queued_when_the_feeder_fails() -> None:
    release = threading.Event()
    seen: list[int] = []

    def slow(number: int) -> None:
        release.wait(5)
        seen.append(number)

    with pytest.raises(RuntimeError, match="feeder"), Sink(slow, depth=5, name="slow") as sink:
        for number in range(4):
            sink.put(number)
        threading.Timer(0.1, release.set).start()
        raise RuntimeError("feeder")
    assert len(seen) <= 1
