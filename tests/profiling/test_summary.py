"""Metrics of a trace that can be verified by hand."""

from __future__ import annotations

import json

import pytest

from latentsync.profiling.summary import OperatorTime, format_operators, summarize_trace, union_seconds
from latentsync.profiling.trace import RunTrace, Span, parse_trace
from tests.profiling.sample_trace import sample_events


def test_stages_have_host_and_device_seconds() -> None:
    stages = summarize_trace(parse_trace(sample_events()))["stages"]
    assert list(stages) == ["decode", "read", "denoise", "other"]
    assert stages["read"]["ranges"] == 2 and stages["read"]["host_seconds"] == pytest.approx(400e-6)
    assert stages["denoise"]["host_seconds"] == pytest.approx(200e-6)
    # The copy and the two kernels, which overlap by 50 us.
    assert stages["denoise"]["device_seconds"] == pytest.approx(350e-6)
    assert stages["denoise"]["device_fraction"] == pytest.approx(0.35)
    assert (stages["denoise"]["kernels"], stages["decode"]["kernels"], stages["other"]["kernels"]) == (2, 0, 1)
    assert stages["decode"]["synchronisations"] == 2 and stages["denoise"]["synchronisations"] == 0
    assert stages["decode"]["synchronising_seconds"] == pytest.approx(210e-6)
    assert stages["read"]["host_fraction"] == pytest.approx(0.4)


def test_gpu_busy_fraction_counts_kernels_and_copies() -> None:
    metrics = summarize_trace(parse_trace(sample_events()))
    assert metrics["gpu_busy_fraction"] == pytest.approx(0.47)
    assert metrics["kernels"] == {"launched": 3, "seconds": pytest.approx(370e-6)}


def test_copies_are_counted_by_direction() -> None:
    copies = summarize_trace(parse_trace(sample_events()))["copies"]
    assert copies["host_to_device"] == {"copies": 1, "bytes": 4096, "seconds": pytest.approx(50e-6), "pageable": 1}
    assert copies["device_to_host"] == {"copies": 2, "bytes": 100, "seconds": pytest.approx(100e-6), "pageable": 1}
    assert copies["device_to_device"]["copies"] == 0


def test_synchronizing_calls_are_counted_by_name() -> None:
    metrics = summarize_trace(parse_trace(sample_events()))
    waits = metrics["synchronisations"]
    assert waits["calls"] == 2 and waits["seconds"] == pytest.approx(210e-6)
    assert waits["by_name"]["cudaEventSynchronize"] == {"calls": 1, "seconds": pytest.approx(10e-6)}
    assert metrics["copy_calls"]["by_name"] == {"cudaMemcpyAsync": {"calls": 3, "seconds": pytest.approx(30e-6)}}


def test_gpu_metrics_are_empty_without_a_gpu_and_serializable() -> None:
    host_only = [each for each in sample_events() if each.get("cat") == "user_annotation"]
    metrics = summarize_trace(parse_trace(host_only))
    assert metrics["gpu_busy_fraction"] is None and metrics["kernels"]["launched"] == 0
    assert metrics["stages"]["read"]["device_seconds"] == 0
    assert json.loads(json.dumps(metrics)) == metrics
    assert summarize_trace(RunTrace(1.0, [], [], []))["stages"] == {}


def test_overlapping_time_counts_once() -> None:
    spans = [Span("kernel", "", start, seconds, (0, 0)) for start, seconds in ((3, 1), (0, 2), (1, 0.5), (1.5, 1))]
    assert union_seconds(spans) == pytest.approx(3.5)
    assert union_seconds([]) == 0


def test_the_most_expensive_operators_come_first() -> None:
    operators = [
        OperatorTime(f"aten::op{index}", 1, host_seconds=index, device_seconds=40 - index) for index in range(20)
    ]
    kernel = OperatorTime("gemm", 3, 0, 10, on_device=True)
    host = format_operators([*operators, kernel], has_gpu=False).splitlines()
    assert len(host) == 2 + 15 and host[2].endswith("aten::op19") and host[2].split()[0] == "10.0%"
    assert not any("gemm" in line for line in host)
    device, kernels, again = format_operators([*operators, kernel], has_gpu=True).split("\n\n")
    assert device.splitlines()[2].endswith("aten::op0") and len(device.splitlines()) == 17
    assert kernels.splitlines()[2].split() == ["100.0%", "10.0000", "3", "gemm"]
    assert again.splitlines() == host
