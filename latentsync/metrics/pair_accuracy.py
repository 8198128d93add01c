"""How well a score tells pairs in sync from pairs that are not, and how often an offset is found."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BINS = 50


@dataclass(frozen=True)
class PairAccuracy:
    """How well scores in [0, 1] separate two kinds of pairs.

    Attributes:
        pairs: how many were judged.
        positives: how many of them are in sync.
        accuracy: share judged rightly when a score above 0.5 counts as in sync, as the published evaluation does.
        best_threshold: the threshold with the largest share of right judgements.
        best_accuracy: that share; found on the same pairs, so a little flattering.
        area_under_curve: chance that a pair in sync scores above one that is not; 0.5 is guessing.
        mean_positive: mean score of pairs in sync.
        mean_negative: mean score of the others.
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
    """Counts of scores in equal bins between 0 and 1.

    Attributes:
        edges: (n + 1,) borders of the bins.
        positives: (n,) pairs in sync.
        negatives: (n,) the others.
    """

    edges: FloatArray
    positives: IntArray
    negatives: IntArray


@dataclass(frozen=True)
class OffsetAccuracy:
    """How often the offset of shifted clips is found.

    Attributes:
        clips: how many were judged.
        exact: share found to the frame.
        within_one: share found within one frame, sign included.
        mean_error: mean absolute error in frames.
    """

    clips: int
    exact: float
    within_one: float
    mean_error: float


def pair_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike) -> PairAccuracy:
    """Judge scores.

    Args:
        scores: (n,) in [0, 1], higher means in sync.
        labels: (n,) 1 = in sync, 0 = not; both kinds occur.

    Raises:
        ConfigError: shapes differ, or a kind is missing.
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


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    values, is_synced = np.asarray(scores, np.float64), np.asarray(labels, np.float64) > 0.5
    if values.shape != is_synced.shape or values.ndim != 1 or not 0 < is_synced.sum() < len(is_synced):
        raise ConfigError(
            f"Cannot rate scores {values.shape} with labels {is_synced.shape}, {int(is_synced.sum())} of them in sync: "
            "expected two equal rows of numbers with both kinds of pairs"
        )
    return values, is_synced


def _accuracy_at_thresholds(values: FloatArray, is_synced: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Thresholds halfway between neighbouring scores (ascending) and the accuracy at each."""
    # Everything up to a place counts as "not in sync", everything after as "in sync".
    below = np.concatenate([[0], np.cumsum(~is_synced)])
    above = is_synced.sum() - np.concatenate([[0], np.cumsum(is_synced)])
    borders = np.concatenate([[values[0] - 1e-9], (values[1:] + values[:-1]) / 2, [values[-1]]])
    usable = np.concatenate([[True], values[1:] > values[:-1], [True]])
    return borders[usable], ((below + above) / len(values))[usable]


def _area(values: FloatArray, is_synced: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve from ranks (Mann-Whitney); equal scores share their rank."""
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives, negatives = int(is_synced.sum()), int((~is_synced).sum())
    return float((ranks[is_synced].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def score_histogram(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = _BINS) -> Histogram:
    """Count scores (n,) in [0, 1] per bin and kind; raises ConfigError as `pair_accuracy` does."""
    values, is_synced = _checked(scores, labels)
    edges = np.linspace(0, 1, bins + 1)
    positives, negatives = (np.histogram(part, edges)[0] for part in (values[is_synced], values[~is_synced]))
    return Histogram(edges, positives.astype(np.int64), negatives.astype(np.int64))


def offset_accuracy(true: npt.ArrayLike, found: npt.ArrayLike) -> OffsetAccuracy:
    """Compare offsets (n,) in frames with the true ones (n,), n >= 1.

    Raises:
        ConfigError: shapes differ or nothing was given.
    """
    expected, answers = np.asarray(true, np.int64), np.asarray(found, np.int64)
    if expected.shape != answers.shape or expected.ndim != 1 or not len(expected):
        raise ConfigError(
            f"Cannot compare offsets {answers.shape} with true ones {expected.shape}: expected two equal rows"
        )
    errors = np.abs(expected - answers)
    return OffsetAccuracy(len(errors), float((errors == 0).mean()), float((errors <= 1).mean()), float(errors.mean()))


def shift_audio(waveform: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """The same length of sound, later by ``samples`` (earlier if negative); the gap is filled with silence."""
    result = np.zeros_like(waveform)
    kept = max(0, len(waveform) - abs(samples))
    if samples >= 0:
        result[len(result) - kept :] = waveform[:kept]
    else:
        result[:kept] = waveform[len(waveform) - kept :]
    return result
