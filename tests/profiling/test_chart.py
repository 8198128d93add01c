"""The profile chart of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentsync.errors import DependencyError
from latentsync.profiling.chart import plot_profile, timeline_lanes
from latentsync.profiling.trace import RunTrace, Span, parse_trace
from tests.profiling.sample_trace import sample_events


def test_every_thread_and_the_gpu_have_a_lane() -> None:
    reader, main, gpu = timeline_lanes(parse_trace(sample_events()))
    assert (reader.name, main.name, gpu.name) == ("read", "denoise, decode", "GPU")
    assert reader.stages["read"] == [pytest.approx((50e-6, 300e-6)), pytest.approx((400e-6, 100e-6))]
    assert gpu.stages["denoise"] == [pytest.approx((150e-6, 350e-6))]
    assert gpu.stages["other"] == [pytest.approx((780e-6, 20e-6))]


def test_nearly_adjacent_spans_are_merged() -> None:
    spans = [Span("kernel", "k", index * 1e-3, 0.9e-3, (0, 7), "denoise") for index in range(1000)]
    (gpu,) = timeline_lanes(RunTrace(1.0, [], [], spans))
    assert gpu.stages == {"denoise": [pytest.approx((0, 0.9999), abs=1e-9)]}


def test_charts_are_drawn_with_and_without_a_gpu(tmp_path: Path) -> None:
    host_only = [each for each in sample_events() if each.get("cat") == "user_annotation"]
    for name, events in (("gpu", sample_events()), ("cpu", host_only)):
        plot_profile(parse_trace(events), tmp_path / f"{name}.png", "a run")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.asarray(image.convert("RGB")).std() > 10
    assert (tmp_path / "gpu.png").read_bytes() != (tmp_path / "cpu.png").read_bytes()


def test_missing_matplotlib_is_reported_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match="pip install matplotlib"):
        plot_profile(parse_trace(sample_events()), tmp_path / "no.png", "a run")
