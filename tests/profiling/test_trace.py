"""Parsing of traces: relevant events, and assignment of events to stages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from latentsync.profiling.trace import parse_trace, read_events
from tests.profiling.sample_trace import GPU, HOST, OTHER, STREAM, event, sample_events


def test_gpu_work_is_assigned_to_the_stage_that_launched_it() -> None:
    run = parse_trace(sample_events())
    assigned = [(span.name.split(" (")[0], span.stage) for span in run.device_work]
    assert assigned == [
        ("Memcpy HtoD", "denoise"),
        ("gemm", "denoise"),
        ("softmax", "denoise"),
        ("Memcpy DtoH", "decode"),
        ("Memcpy DtoH", "decode"),
        ("late", None),
    ]


def test_times_are_seconds_since_the_start_of_the_run() -> None:
    run = parse_trace(sample_events())
    assert run.wall_seconds == pytest.approx(1e-3)
    first, *_ = run.stages
    assert (first.name, first.lane) == ("read", (HOST, OTHER))
    assert (first.start, first.stop) == pytest.approx((50e-6, 350e-6))
    assert [span.name for span in run.stages] == ["read", "denoise", "decode", "read"]


def test_events_outside_the_run_are_ignored() -> None:
    run = parse_trace(sample_events())
    assert "before" not in {span.name for span in run.device_work}
    assert "cudaDeviceSynchronize" not in {span.name for span in run.calls}


def test_gpu_ranges_assign_kernels_without_a_launching_call() -> None:
    stream = (GPU, STREAM)
    orphan = event("kernel", "orphan", stream, (910, 920), correlation=99, device=GPU, stream=STREAM)
    assert parse_trace([*sample_events(), orphan]).device_work[-1].stage is None
    on_gpu = event("gpu_user_annotation", "stage:restore", stream, (900, 950))
    assert parse_trace([*sample_events(), orphan, on_gpu]).device_work[-1].stage == "restore"


def test_trace_without_the_run_range_is_rejected() -> None:
    with pytest.raises(ValueError, match="no range 'run'"):
        parse_trace([each for each in sample_events() if each["name"] != "run"])


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_reading_a_file_skips_operators_and_gives_the_same_run(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, json.dumps({"schemaVersion": 1, "traceEvents": sample_events()})
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    events = read_events(path)
    assert "aten::mm" not in {each["name"] for each in events}
    assert parse_trace(events) == parse_trace(sample_events())
