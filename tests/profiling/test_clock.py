"""The stage clock."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from latentsync.profiling import StageClock

CPU = torch.device("cpu")


def test_seconds_add_up_over_ranges_and_threads() -> None:
    clock = StageClock(CPU)

    def work() -> None:
        for _ in range(2):
            with clock.host("sleep"):
                time.sleep(0.02)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with clock.on_device("device"):
        time.sleep(0.02)
    seconds = clock.seconds()
    assert list(seconds) == ["sleep", "device"]
    assert seconds["sleep"] >= 6 * 0.02 and seconds["device"] >= 0.02
    assert clock.seconds() == seconds


def test_failing_stage_is_timed_and_its_error_propagates() -> None:
    clock = StageClock(CPU)
    with pytest.raises(KeyError), clock.on_device("broken"):
        raise KeyError
    assert "broken" in clock.seconds()


@pytest.mark.gpu
def test_gpu_work_is_timed_on_the_gpu() -> None:
    device = torch.device("cuda")
    clock, matrix = StageClock(device), torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    with clock.on_device("multiply"):
        for _ in range(20):
            matrix @ matrix
    stop.record()
    seconds = clock.seconds()["multiply"]
    stop.synchronize()
    assert 0 < seconds <= start.elapsed_time(stop) / 1000 + 0.001
