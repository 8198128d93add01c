"""Accuracy of sync scores in classifying pairs, and of estimated audio-video offsets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError

ScoreArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BINS = 50


@dataclass(frozen=True)
class PairAccuracy:
    """How well scores in [0, 1] separate positive pairs (in sync) from negative ones (out of sync).

    Attributes:
        pairs: number of pairs.
        positives: number of pairs in sync.
        accuracy: fraction classified correctly at the threshold 0.5 of the published evaluation.
        best_threshold: threshold with the highest accuracy.
        best_accuracy: accuracy at that threshold; slightly optimistic, since it is chosen on the same pairs.
        area_under_curve: area under the ROC curve, the probability that a positive pair scores above a negative one;
            0.5 is chance level.
        mean_positive: mean score of positive pairs.
        mean_negative: mean score of negative pairs.
    """

    pairs: int
    positives: int
    accuracy: float
    best_threshold: float
    best_accuracy: float
    area_under_curve: float
    mean_positive: float
    mean_negative: float


@dataclass(frozen=True)
class Histogram:
    """Histogram of scores in equal bins between 0 and 1.

    Attributes:
        edges: (n + 1,) edges of the bins.
        positives: (n,) counts of pairs in sync.
        negatives: (n,) counts of pairs out of sync.
    """

    edges: ScoreArray
    positives: IntArray
    negatives: IntArray


@dataclass(frozen=True)
class OffsetAccuracy:
    """Accuracy of estimated audio-video offsets.

    Attributes:
        clips: number of clips.
        exact: fraction estimated exactly.
        within_one: fraction with an error of at most one frame; the sign counts.
        mean_error: mean absolute error in frames.
    """

    clips: int
    exact: float
    within_one: float
    mean_error: float


def pair_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike) -> PairAccuracy:
    """Classification accuracy of scores.

    Args:
        scores: (n,) in [0, 1], higher for pairs in sync.
        labels: (n,) 1 = in sync, 0 = out of sync; both must occur.

    Raises:
        ConfigError: shapes differ, or there are no positive or no negative pairs.
    """
    values, is_synced = _checked(scores, labels)
    order = np.argsort(values, kind="stable")
    thresholds, accuracies = _accuracy_at_thresholds(values[order], is_synced[order])
    best = int(accuracies.argmax())
    return PairAccuracy(
        pairs=len(values),
        positives=int(is_synced.sum()),
        accuracy=float(((values > 0.5) == is_synced).mean()),
        best_threshold=float(thresholds[best]),
        best_accuracy=float(accuracies[best]),
        area_under_curve=_area(values, is_synced),
        mean_positive=float(values[is_synced].mean()),
        mean_negative=float(values[~is_synced].mean()),
    )


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[ScoreArray, npt.NDArray[np.bool_]]:
    values, is_synced = np.asarray(scores, np.float64), np.asarray(labels, np.float64) > 0.5
    if values.shape != is_synced.shape or values.ndim != 1 or not 0 < is_synced.sum() < len(is_synced):
        raise ConfigError(
            f"Cannot evaluate scores {values.shape} with labels {is_synced.shape}, {int(is_synced.sum())} of them "
            "positive: expected two one-dimensional arrays of equal length with both positive and negative pairs"
        )
    return values, is_synced


def _accuracy_at_thresholds(values: ScoreArray, is_synced: npt.NDArray[np.bool_]) -> tuple[ScoreArray, ScoreArray]:
    """Thresholds halfway between neighboring scores (ascending), and the accuracy at each."""
    # Scores below the threshold are classified as out of sync, scores above it as in sync.
    below = np.concatenate([[0], np.cumsum(~is_synced)])
    above = is_synced.sum() - np.concatenate([[0], np.cumsum(is_synced)])
    thresholds = np.concatenate([[values[0] - 1e-9], (values[1:] + values[:-1]) / 2, [values[-1]]])
    usable = np.concatenate([[True], values[1:] > values[:-1], [True]])
    return thresholds[usable], ((below + above) / len(values))[usable]


def _area(values: ScoreArray, is_synced: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve from ranks (Mann-Whitney); ties get their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = int(is_synced.sum()), int((~is_synced).sum())
    return float((ranks[is_synced].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def score_histogram(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = _BINS) -> Histogram:
    """Histogram of scores (n,) in [0, 1] for positive and negative pairs.

    Raises:
        ConfigError: see `pair_accuracy`.
    """
    values, is_synced = _checked(scores, labels)
    edges = np.linspace(0, 1, bins + 1)
    positives, negatives = (np.histogram(part, edges)[0] for part in (values[is_synced], values[~is_synced]))
    return Histogram(edges, positives.astype(np.int64), negatives.astype(np.int64))


def offset_accuracy(true: npt.ArrayLike, found: npt.ArrayLike) -> OffsetAccuracy:
    """Compare estimated offsets ``found`` (n,) in frames with the true ones (n,), n >= 1.

    Raises:
        ConfigError: shapes differ, or the arrays are empty.
    """
    expected, estimated = np.asarray(true, np.int64), np.asarray(found, np.int64)
    if expected.shape != estimated.shape or expected.ndim != 1 or not len(expected):
        raise ConfigError(
            f"Cannot compare offsets {estimated.shape} with true offsets {expected.shape}: expected two non-empty "
            "one-dimensional arrays of equal length"
        )
    errors = np.abs(expected - estimated)
    return OffsetAccuracy(len(errors), float((errors == 0).mean()), float((errors <= 1).mean()), float(errors.mean()))


def shift_audio(waveform: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """Delay audio by ``samples`` (advance it if negative), keeping its length; the gap is filled with silence."""
    result = np.zeros_like(waveform)
    kept = max(0, len(waveform) - abs(samples))
    if samples >= 0:
        result[len(result) - kept :] = waveform[:kept]
    else:
        result[:kept] = waveform[len(waveform) - kept :]
    return result
