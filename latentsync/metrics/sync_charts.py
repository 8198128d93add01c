"""Charts of a SyncNet's accuracy on pairs and offsets."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latentsync.errors import DependencyError
from latentsync.metrics.pair_accuracy import (
    Histogram,
    IntArray,
    PairAccuracy,
    offset_accuracy,
    pair_accuracy,
    score_histogram,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_accuracy_chart(
    path: Path,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    offsets: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> None:
    """Plot score histograms of positive and negative pairs and, if given, estimated against true offsets.

    Args:
        path: image to write, .png, .svg or .pdf; written atomically, replacing an existing file.
        scores: (n,) in [0, 1], see `pair_accuracy`.
        labels: (n,) 1 = in sync, 0 = out of sync.
        offsets: true and estimated offsets of clips in frames, each (k,).

    Raises:
        ConfigError: see `pair_accuracy` and `offset_accuracy`.
        DependencyError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("Charts need matplotlib. Install it with: pip install matplotlib") from error
    figure: Figure = Figure(figsize=(6.4 if offsets is None else 12.0, 4.6), layout="constrained")
    axes = figure.subplots(1, 1 if offsets is None else 2, squeeze=False)[0]
    _draw_pairs(axes[0], pair_accuracy(scores, labels), score_histogram(scores, labels))
    if offsets is not None:
        _draw_offsets(axes[1], *(np.asarray(each, np.int64) for each in offsets))
    _save(figure, path)


def _draw_pairs(axes: "Axes", accuracy: PairAccuracy, histogram: Histogram) -> None:
    centers, width = (histogram.edges[1:] + histogram.edges[:-1]) / 2, np.diff(histogram.edges)
    axes.bar(centers, histogram.positives, width, color="#2a9d6f", alpha=0.65, label="in sync")
    axes.bar(centers, histogram.negatives, width, color="#c2452d", alpha=0.65, label="out of sync")
    axes.axvline(0.5, color="0.2", linewidth=1, label=f"0.5: accuracy {accuracy.accuracy:.1%}")
    best = f"{accuracy.best_threshold:.2f}: accuracy {accuracy.best_accuracy:.1%}"
    axes.axvline(accuracy.best_threshold, color="0.2", linewidth=1, linestyle="--", label=best)
    axes.set_xlim(0, 1)
    axes.set_xlabel("cosine similarity of the embeddings")
    axes.set_ylabel("pairs")
    axes.set_title(f"{accuracy.pairs} pairs, area under the ROC curve {accuracy.area_under_curve:.3f}")
    axes.legend()


def _draw_offsets(axes: "Axes", true: IntArray, found: IntArray) -> None:
    accuracy = offset_accuracy(true, found)
    largest = int(max(1, np.abs(true).max(), np.abs(found).max()))
    counts = np.zeros((2 * largest + 1,) * 2, np.int64)
    np.add.at(counts, (found + largest, true + largest), 1)
    limits = (-largest - 0.5, largest + 0.5)
    image = axes.imshow(counts, origin="lower", extent=(*limits, *limits), cmap="Blues", interpolation="nearest")
    for shift in (-1, 1):
        axes.plot(limits, (limits[0] + shift, limits[1] + shift), color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_xlabel("true audio offset, frames (positive: early)")
    axes.set_ylabel("estimated offset, frames")
    axes.set_title(f"{accuracy.clips} clips: {accuracy.within_one:.1%} within one frame, {accuracy.exact:.1%} exact")
    axes.figure.colorbar(image, ax=axes, label="clips")


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=110)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
