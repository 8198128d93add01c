"""Charts of a run's metrics."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

_COLUMNS = 3


def draw_charts(lines: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw each term of training, faint and smoothed, with the validation metric of the same name, as PNG.

    Args:
        lines: of ``curves.jsonl``.
        path: written atomically; the folder is made if missing.
        title: above the charts.
    """
    from matplotlib.figure import Figure

    train, validation = _series(lines, "train"), _series(lines, "validation")
    train |= _series([{**line, "run": _of_run(line)} for line in lines if "train" in line], "run")
    names = list(dict.fromkeys([*train, *validation]))
    rows = max(-(-len(names) // _COLUMNS), 1)
    figure = Figure(figsize=(4.5 * _COLUMNS, 3.0 * rows))
    figure.subplots_adjust(0.05, 0.16 / rows, 0.98, 1 - 0.22 / rows, wspace=0.2, hspace=0.4)
    figure.suptitle(title)
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, position)
        _draw(axes, name, train.get(name), validation.get(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    figure.savefig(partial, dpi=70)
    os.replace(partial, path)


def smoothed(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean of each value and up to ``window`` - 1 before it; same length."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _draw(axes: "Axes", name: str, train: Series | None, validation: Series | None) -> None:
    axes.set_title(name)
    axes.grid(alpha=0.3)
    axes.ticklabel_format(useOffset=False)
    if train is not None:
        steps, values = train
        axes.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.8)
        axes.plot(steps, smoothed(values, max(len(values) // 25, 1)), color="tab:blue", label="training")
    if validation is not None:
        axes.plot(*validation, color="tab:orange", marker="o", markersize=3, label="validation")
    axes.legend(fontsize="small")


def _series(lines: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Series]:
    points: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.get(kind, {}).items():
            if value is not None:
                points.setdefault(name, []).append((line["step"], value))
    columns = {name: np.array(pairs, dtype=np.float64) for name, pairs in points.items()}
    return {name: (pairs[:, 0], pairs[:, 1]) for name, pairs in columns.items()}


def _of_run(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in ("lr", "grad_norm", "samples_per_second")}
