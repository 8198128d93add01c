"""The figures that follow from the trace of one run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from latentsync.profiling.trace import RunTrace, Span

DIRECTIONS = {
    "HtoD": "host_to_device",
    "DtoH": "device_to_host",
    "DtoD": "device_to_device",
    "PtoP": "device_to_other_device",
}
_SYNCHRONISING = re.compile(r"cu(da)?(Stream|Device|Event|Ctx)Synchronize")
_COPYING = re.compile(r"cu(da)?Memcpy")


@dataclass(frozen=True)
class OperatorTime:
    """An operator or kernel over the whole run.

    Attributes:
        name: as torch calls it.
        calls: how often it ran.
        host_seconds: on the host, the operators that it called aside.
        device_seconds: its kernels on the GPU, those of the operators that it called aside.
        on_device: whether it is a kernel itself.
    """

    name: str
    calls: int
    host_seconds: float
    device_seconds: float
    on_device: bool = False


def union_seconds(spans: Iterable[Span]) -> float:
    """Seconds during which at least one of the spans lasted."""
    total, end = 0.0, float("-inf")
    for span in sorted(spans, key=lambda each: each.start):
        total += max(0.0, span.stop - max(span.start, end))
        end = max(end, span.stop)
    return total


def summarize_trace(run: RunTrace) -> dict[str, Any]:
    """The figures of a run, ready for JSON: times in seconds, sizes in bytes, shares of the wall-clock time.

    Without any work on a GPU the figures about it are zero and "gpu_busy_fraction" is None.
    """
    kernels = [span for span in run.device_work if span.kind == "kernel"]
    busy = union_seconds(run.device_work) / run.wall_seconds if run.device_work else None
    return {
        "stages": stage_table(run),
        "gpu_busy_fraction": None if busy is None else round(busy, 4),
        "kernels": {"launched": len(kernels), "seconds": _rounded(sum(span.seconds for span in kernels))},
        "copies": copy_table(run.device_work),
        "synchronisations": call_table(run.calls, _SYNCHRONISING),
        "copy_calls": call_table(run.calls, _COPYING),
    }


def stage_table(run: RunTrace) -> dict[str, dict[str, Any]]:
    """Figures of each stage, the longest on either side first; work on the GPU outside all stages is called "other"."""
    host, waits, device = (_by_stage(spans) for spans in (run.stages, _matching(run.calls), run.device_work))
    table = {}
    for name in dict.fromkeys([*host, *device]):
        host_seconds, device_seconds = sum(span.seconds for span in host[name]), union_seconds(device[name])
        table[name] = {
            "ranges": len(host[name]),
            "host_seconds": _rounded(host_seconds),
            "host_fraction": round(host_seconds / run.wall_seconds, 4),
            "device_seconds": _rounded(device_seconds),
            "device_fraction": round(device_seconds / run.wall_seconds, 4),
            "kernels": sum(span.kind == "kernel" for span in device[name]),
            "synchronisations": len(waits[name]),
            "synchronising_seconds": _rounded(sum(span.seconds for span in waits[name])),
        }
    longest = sorted(table, key=lambda name: -max(table[name]["host_seconds"], table[name]["device_seconds"]))
    return {name: table[name] for name in longest}


def copy_table(device_work: Iterable[Span]) -> dict[str, dict[str, Any]]:
    """Number, bytes and seconds of the copies in each direction, and how many touched memory that is not pinned."""
    table: dict[str, dict[str, Any]] = {
        direction: {"copies": 0, "bytes": 0, "seconds": 0.0, "pageable": 0} for direction in DIRECTIONS.values()
    }
    for span in device_work:
        found = re.match(r"Memcpy (\w+)", span.name) if span.kind == "gpu_memcpy" else None
        if found is None or found[1] not in DIRECTIONS:
            continue
        row = table[DIRECTIONS[found[1]]]
        row["copies"] += 1
        row["bytes"] += span.bytes
        row["seconds"] += span.seconds
        row["pageable"] += "Pageable" in span.name
    for row in table.values():
        row["seconds"] = _rounded(row["seconds"])
    return table


def call_table(calls: Iterable[Span], pattern: re.Pattern[str]) -> dict[str, Any]:
    """How often CUDA calls of a kind were made, and how long the host was in them: in all and by name."""
    by_name: dict[str, list[Span]] = defaultdict(list)
    for span in _matching(calls, pattern):
        by_name[span.name].append(span)
    every = [span for spans in by_name.values() for span in spans]
    return {**_count(every), "by_name": {name: _count(spans) for name, spans in sorted(by_name.items())}}


def format_operators(operators: Sequence[OperatorTime], has_gpu: bool, rows: int = 15) -> str:
    """The operators that cost most, as text: on a GPU by the time there, then kernels; always by the time on the host.

    Args:
        operators: of the whole run.
        has_gpu: whether there are figures of a GPU.
        rows: most rows of a table.
    """
    own = [each for each in operators if not each.on_device]
    kernels = [each for each in operators if each.on_device]
    host = _format(own, "Operators by their own time on the host", "host_seconds", rows)
    if not has_gpu:
        return host
    device = _format(own, "CUDA operators by their own time on the GPU", "device_seconds", rows)
    return "\n".join([device, _format(kernels, "Kernels and copies by their time", "device_seconds", rows), host])


def _format(operators: Sequence[OperatorTime], title: str, key: str, rows: int) -> str:
    total = sum(getattr(each, key) for each in operators) or 1.0
    top = sorted(operators, key=lambda each: -getattr(each, key))[:rows]
    lines = [title, f"{'share':>7} {'seconds':>10} {'calls':>9}  name"]
    for each in top:
        seconds = getattr(each, key)
        lines.append(f"{seconds / total:>7.1%} {seconds:>10.4f} {each.calls:>9}  {each.name[:120]}")
    return "\n".join(lines) + "\n"


def _matching(calls: Iterable[Span], pattern: re.Pattern[str] = _SYNCHRONISING) -> list[Span]:
    return [span for span in calls if pattern.match(span.name)]


def _by_stage(spans: Iterable[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.stage or "other"].append(span)
    return found


def _count(spans: Sequence[Span]) -> dict[str, Any]:
    return {"calls": len(spans), "seconds": _rounded(sum(span.seconds for span in spans))}


def _rounded(seconds: float) -> float:
    return round(float(seconds), 6)
