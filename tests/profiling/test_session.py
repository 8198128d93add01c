"""Real recordings of threads on the CPU, and of copies and kernels on a GPU."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import pytest
import torch

from latentsync.profiling import StageClock
from latentsync.profiling.session import record
from latentsync.profiling.summary import summarize_trace

CPU = torch.device("cpu")


def multiply(clock: StageClock, stage: str, times: int) -> None:
    for _ in range(times):
        with clock.host(stage):
            torch.ones(64, 64) @ torch.ones(64, 64)


def test_all_threads_are_recorded(tmp_path: Path) -> None:
    clock = StageClock(CPU)

    def run() -> str:
        thread = threading.Thread(target=multiply, args=(clock, "detect", 3))
        thread.start()
        multiply(clock, "decode", 2)
        thread.join()
        return "result"

    recording = record(run, CPU, tmp_path / "trace.json.gz")
    assert recording.result == "result" and recording.all_threads
    stages = summarize_trace(recording.trace)["stages"]
    assert {name: stage["ranges"] for name, stage in stages.items()} == {"detect": 3, "decode": 2}
    assert len({span.lane for span in recording.trace.stages}) == 2
    for name, seconds in clock.seconds().items():
        assert stages[name]["host_seconds"] == pytest.approx(seconds, abs=0.01)
    assert sum(stage["host_seconds"] for stage in stages.values()) <= 2 * recording.trace.wall_seconds
    (product,) = [each for each in recording.operators if each.name == "aten::mm"]
    assert product.calls == 5 and product.host_seconds > 0 and not product.on_device
    assert not any("stage" in each.name or each.name == "run" for each in recording.operators)
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        assert "aten::mm" in {each["name"] for each in json.load(file)["traceEvents"]}


def test_older_torch_records_the_starting_thread_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(torch.profiler, "_ExperimentalConfig")
    clock = StageClock(CPU)
    recording = record(lambda: multiply(clock, "decode", 2), CPU, tmp_path / "trace.json")
    assert not recording.all_threads and "starting thread only" in caplog.text
    assert [span.name for span in recording.trace.stages] == ["decode", "decode"]


def test_error_of_the_run_propagates(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        record(lambda: 1 // 0, CPU, tmp_path / "trace.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_copies_kernels_and_synchronizations_are_counted_on_a_gpu(tmp_path: Path) -> None:
    device = torch.device("cuda")
    values, weights = torch.randn(1000), torch.randn(1000, device=device)

    def run() -> None:
        clock = StageClock(device)
        with clock.on_device("denoise"):
            on_device = values.to(device)
            result = (on_device * weights + 1).clone()
        with clock.on_device("decode"):
            result.cpu()
        clock.seconds()

    run()
    recording = record(run, device, tmp_path / "trace.json.gz")
    metrics = summarize_trace(recording.trace)
    copies, stages = metrics["copies"], metrics["stages"]
    assert (copies["host_to_device"]["copies"], copies["host_to_device"]["bytes"]) == (1, 4000)
    assert (copies["device_to_host"]["copies"], copies["device_to_host"]["bytes"]) == (1, 4000)
    assert (copies["device_to_device"]["copies"], copies["device_to_device"]["bytes"]) == (1, 4000)
    assert metrics["kernels"]["launched"] == stages["denoise"]["kernels"] == 2
    assert "other" not in stages and stages["decode"]["device_seconds"] > 0
    assert metrics["synchronisations"]["by_name"]["cudaStreamSynchronize"]["calls"] >= 1
    assert 0 < metrics["gpu_busy_fraction"] < 1
    assert any(each.name == "aten::mul" and each.device_seconds > 0 for each in recording.operators)
