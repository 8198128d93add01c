"""A picture of where the time of a run went."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.errors import DependencyError
from latentsync.profiling.summary import stage_table
from latentsync.profiling.trace import Lane, RunTrace, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PALETTE = "#3b6fb6 #e08a2e #4c9f50 #c44e52 #8b6bb1 #8c6d4f #d77fb3 #3aa6a6 #b5a642 #5c6f82".split()
_OTHER_COLOR = "#bbbbbb"
_LEAST_GAP = 1 / 4000  # of the wall-clock time: narrower ones could not be seen


@dataclass(frozen=True)
class TimelineLane:
    """A row of the timeline: its name, and (start, seconds) of the times when each stage ran in it."""

    name: str
    stages: dict[str, list[tuple[float, float]]]


def plot_profile(run: RunTrace, path: Path, title: str) -> None:
    """Draw a timeline, a lane for each thread and one for the GPU, and below it the seconds of each stage, as PNG.

    Args:
        run: the trace.
        path: of the picture.
        title: above it.

    Raises:
        DependencyError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("The picture needs matplotlib. Install it with: pip install matplotlib") from error
    lanes, stages = timeline_lanes(run), stage_table(run)
    figure: Figure = Figure(figsize=(13.0, 2.2 + 0.6 * len(lanes) + 0.4 * len(stages)), layout="constrained")
    figure.suptitle(title)
    timeline, bars = figure.subplots(2, 1, height_ratios=(0.6 * len(lanes) + 1, 0.4 * len(stages) + 1))
    colors = {name: _PALETTE[row % len(_PALETTE)] for row, name in enumerate(stages)} | {"other": _OTHER_COLOR}
    _draw_timeline(timeline, lanes, colors, run.wall_seconds)
    _draw_bars(bars, stages, colors, bool(run.device_work))
    figure.savefig(path, dpi=90, format="png")


def timeline_lanes(run: RunTrace) -> list[TimelineLane]:
    """The lanes of the timeline, in order of their first stage; in each, spans that nearly touch become one.

    A thread's lane is called by the stages that ran in it, the GPU's "GPU".
    """
    threads: dict[Lane, list[Span]] = {}
    for span in run.stages:
        threads.setdefault(span.lane, []).append(span)
    named = [(", ".join(dict.fromkeys(span.name for span in spans)), spans) for spans in threads.values()]
    if run.device_work:
        named.append(("GPU", run.device_work))
    gap = run.wall_seconds * _LEAST_GAP
    return [TimelineLane(name, _joined(spans, gap)) for name, spans in named]


def _joined(spans: Iterable[Span], gap: float) -> dict[str, list[tuple[float, float]]]:
    """Per stage the times when it ran."""
    found: dict[str, list[tuple[float, float]]] = {}
    for span in spans:
        runs = found.setdefault(span.stage or "other", [])
        if runs and span.start - sum(runs[-1]) <= gap:
            start = runs[-1][0]
            runs[-1] = (start, max(sum(runs[-1]), span.stop) - start)
        else:
            runs.append((span.start, span.seconds))
    return found


def _draw_timeline(axes: Axes, lanes: Sequence[TimelineLane], colors: Mapping[str, str], wall: float) -> None:
    for row, lane in enumerate(lanes):
        for stage, runs in lane.stages.items():
            axes.broken_barh(runs, (row - 0.4, 0.8), facecolors=colors.get(stage, _OTHER_COLOR), linewidth=0)
    axes.set_yticks(range(len(lanes)), [textwrap.fill(lane.name, 28) for lane in lanes])
    axes.invert_yaxis()
    axes.set_xlim(0, wall)
    axes.set_xlabel("seconds from the start of the run")
    axes.set_title("When each lane worked", fontsize="medium", loc="left")
    axes.grid(axis="x", alpha=0.3)


def _draw_bars(axes: Axes, stages: Mapping[str, Mapping[str, Any]], colors: Mapping[str, str], has_gpu: bool) -> None:
    rows, shades = range(len(stages)), [colors[name] for name in stages]
    device, host = ([each[key] for each in stages.values()] for key in ("device_seconds", "host_seconds"))
    if has_gpu:
        above, below = ([row + shift for row in rows] for shift in (-0.2, 0.2))
        drawn = [axes.barh(above, device, 0.36, color=shades, label="on the GPU")]
        drawn.append(axes.barh(below, host, 0.36, color=shades, alpha=0.4, hatch="///", label="on the host"))
        axes.legend(loc="lower right")
    else:
        drawn = [axes.barh(rows, host, 0.7, color=shades)]
    for group in drawn:
        axes.bar_label(group, fmt="%.3g", padding=3, fontsize="small")
    axes.margins(x=0.08)
    axes.set_yticks(rows, list(stages))
    axes.invert_yaxis()
    axes.set_xlabel("seconds in the stage; stages run side by side")
    axes.set_title("Seconds of each stage", fontsize="medium", loc="left")
    axes.grid(axis="x", alpha=0.3)
