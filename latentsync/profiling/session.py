"""Run something once under torch's profiler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from latentsync.profiling.clock import STAGE_PREFIX
from latentsync.profiling.summary import OperatorTime
from latentsync.profiling.trace import RUN_RANGE, RunTrace, parse_trace, read_events

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MICROSECONDS = 1e-6


@dataclass(frozen=True)
class Recording(Generic[T]):
    """What was seen of a run.

    Attributes:
        result: what the run returned.
        trace: its stages, its calls of CUDA, its work on the GPU.
        operators: of the whole run, kernels among them.
        all_threads: whether ranges and operators of all threads were seen, or of the starting one only.
    """

    result: T
    trace: RunTrace
    operators: list[OperatorTime]
    all_threads: bool


def record(run: Callable[[], T], device: torch.device, trace_path: Path) -> Recording[T]:
    """Call ``run`` once under the profiler.

    Args:
        run: what to look at; its stages are the ranges of a `StageClock`.
        device: where it works; on CUDA the GPU is watched too.
        trace_path: gets the Chrome trace (.json or .json.gz).
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    config = _config_for_all_threads()
    with profile(activities=activities, experimental_config=config) as profiler, record_function(RUN_RANGE):
        result = run()
    profiler.export_chrome_trace(str(trace_path))
    trace = parse_trace(read_events(trace_path))
    if device.type == "cuda" and not trace.device_work:
        logger.warning(
            "Nothing was recorded of the GPU: torch cannot reach CUDA's profiling interface (CUPTI) here, or another "
            "profiler holds it; the figures about the GPU are missing"
        )
    return Recording(result, trace, _operators(profiler), config is not None)


def _config_for_all_threads() -> Any:
    """A configuration for seeing all threads; None, and a note, where this torch cannot."""
    try:
        return torch.profiler._ExperimentalConfig(profile_all_threads=True)
    except (AttributeError, TypeError):
        logger.warning(
            "torch %s profiles the starting thread only: decoding, detection and encoding are missing on the host's "
            "side of the trace; their seconds are in the run's own report",
            torch.__version__,
        )
        return None


def _operators(profiler: profile) -> list[OperatorTime]:
    """Operators and kernels, summed by name; ranges are neither."""
    return [
        OperatorTime(
            name=each.key,
            calls=each.count,
            host_seconds=each.self_cpu_time_total * _MICROSECONDS,
            device_seconds=each.self_device_time_total * _MICROSECONDS,
            on_device=each.device_type != DeviceType.CPU,
        )
        for each in profiler.key_averages()
        if each.key != RUN_RANGE and not each.key.startswith(STAGE_PREFIX)
    ]
