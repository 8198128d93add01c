"""From the events of a Chrome trace to the spans of one run, each with the stage it belongs to."""

from __future__ import annotations

import gzip
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentsync.profiling.clock import STAGE_PREFIX

TraceEvent = Mapping[str, Any]
Lane = tuple[Any, Any]
"""(process, thread) on the host, (device, stream) on a GPU."""

RUN_RANGE = "run"
"""Name of the range round the whole run that is looked at."""

_DEVICE_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
_CALLS = {"cuda_runtime", "cuda_driver"}
_RANGES = {"user_annotation", "gpu_user_annotation"}
_MICROSECONDS = 1e-6


@dataclass(frozen=True)
class Span:
    """Something that took time.

    Attributes:
        kind: the event's category: "user_annotation", "kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", ...
        name: of the stage, kernel, copy or call.
        start: seconds from the start of the run.
        seconds: how long it took.
        lane: where it ran.
        stage: the stage that it is or belongs to, None outside all of them.
        bytes: of a copy.
    """

    kind: str
    name: str
    start: float
    seconds: float
    lane: Lane
    stage: str | None = None
    bytes: int = 0

    @property
    def stop(self) -> float:
        """Seconds from the start of the run to the end of the span."""
        return self.start + self.seconds


@dataclass(frozen=True)
class RunTrace:
    """One run.

    Attributes:
        wall_seconds: from its start to its end.
        stages: the stages' ranges on the host, in order of start.
        calls: of CUDA from the host.
        device_work: kernels, copies and fillings on the GPU, in order of start.
    """

    wall_seconds: float
    stages: list[Span]
    calls: list[Span]
    device_work: list[Span]


def read_events(path: Path) -> list[TraceEvent]:
    """The events of a trace file (.json or .json.gz) that a `RunTrace` is made of.

    Operators are most of a trace and are dropped while it is read, so that memory stays small.
    """
    wanted = _DEVICE_WORK | _CALLS | _RANGES

    def slim(item: dict[str, Any]) -> dict[str, Any] | None:
        return item if "ph" not in item or (item["ph"] == "X" and item.get("cat") in wanted) else None

    file = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with file:
        return [event for event in json.load(file, object_hook=slim)["traceEvents"] if event is not None]


def parse_trace(events: Iterable[TraceEvent]) -> RunTrace:
    """Order the events of a trace by what they are and by the stage that they belong to.

    Work on the device belongs to the stage whose thread queued it, however late it ran.

    Args:
        events: complete events ("ph": "X") of a Chrome trace by torch's profiler, times in microseconds; others are
            passed over, and so is what lies outside the run.

    Raises:
        ValueError: no range named `RUN_RANGE` is among them.
    """
    inside, run = _events_of_the_run(events)
    ranges = _Ranges(inside)
    calls = [event for event in inside if event.get("cat") in _CALLS]
    launches = {event["args"]["correlation"]: event for event in calls if "correlation" in event.get("args", {})}

    def queued_by(event: TraceEvent) -> str | None:
        launch = launches.get(event.get("args", {}).get("correlation"))
        return (ranges.stage_at(launch) if launch else None) or ranges.stage_at(event)

    stages = [event for event in inside if event.get("cat") == "user_annotation" and _is_stage(event)]
    work = [event for event in inside if event.get("cat") in _DEVICE_WORK]
    return RunTrace(
        wall_seconds=run["dur"] * _MICROSECONDS,
        stages=[_span(event, run["ts"], _stage_name(event)) for event in stages],
        calls=[_span(event, run["ts"], ranges.stage_at(event)) for event in calls],
        device_work=[_span(event, run["ts"], queued_by(event)) for event in work],
    )


def _events_of_the_run(events: Iterable[TraceEvent]) -> tuple[list[TraceEvent], TraceEvent]:
    """The complete events that begin in the run, in order of start, and the range round it."""
    complete = [event for event in events if event.get("ph") == "X"]
    run = next((each for each in complete if each["name"] == RUN_RANGE and each.get("cat") == "user_annotation"), None)
    if run is None:
        raise ValueError(f"the trace has no range {RUN_RANGE!r}: is it one of latentsync.profiling.session?")
    inside = [each for each in complete if 0 <= each["ts"] - run["ts"] <= run["dur"]]
    return sorted(inside, key=lambda each: each["ts"]), run


class _Ranges:
    """The stages' ranges of all lanes; in one lane they do not overlap."""

    def __init__(self, events: Iterable[TraceEvent]) -> None:
        self._lanes: dict[Lane, list[tuple[float, float, str]]] = defaultdict(list)
        for event in events:
            if event.get("cat") in _RANGES and _is_stage(event):
                self._lanes[_lane(event)].append((event["ts"], event["ts"] + event["dur"], _stage_name(event)))
        for lane in self._lanes.values():
            lane.sort()

    def stage_at(self, event: TraceEvent) -> str | None:
        """The stage whose range in the event's lane holds the event's start."""
        lane = self._lanes.get(_lane(event), [])
        position = bisect_right(lane, event["ts"], key=lambda each: each[0]) - 1
        return lane[position][2] if position >= 0 and event["ts"] <= lane[position][1] else None


def _is_stage(event: TraceEvent) -> bool:
    return str(event["name"]).startswith(STAGE_PREFIX)


def _stage_name(event: TraceEvent) -> str:
    return str(event["name"]).removeprefix(STAGE_PREFIX)


def _lane(event: TraceEvent) -> Lane:
    return event["pid"], event["tid"]


def _span(event: TraceEvent, origin: float, stage: str | None) -> Span:
    start, seconds = (event["ts"] - origin) * _MICROSECONDS, event["dur"] * _MICROSECONDS
    size = int(event.get("args", {}).get("bytes", 0))
    return Span(event["cat"], _stage_name(event), start, seconds, _lane(event), stage, size)
