"""Accuracy on pairs and offsets, and its chart."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from latentsync.errors import ConfigError
from latentsync.metrics.pair_accuracy import offset_accuracy, pair_accuracy, score_histogram, shift_audio
from latentsync.metrics.sync_charts import draw_accuracy_chart

SCORES = [0.9, 0.8, 0.45, 0.3, 0.2, 0.6]
LABELS = [1, 1, 1, 0, 0, 0]


def test_accuracy_at_half_and_at_the_best_threshold():
    metrics = pair_accuracy(SCORES, LABELS)
    assert (metrics.pairs, metrics.positives) == (6, 3)
    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.best_accuracy == pytest.approx(5 / 6)
    assert 0.3 < metrics.best_threshold < 0.8
    assert metrics.area_under_curve == pytest.approx(8 / 9)
    assert metrics.mean_negative == pytest.approx(1.1 / 3)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2, max_size=40))
def test_no_threshold_is_more_accurate_than_the_best_one(pairs: list[tuple[float, bool]]):
    scores, labels = np.array([each[0] for each in pairs]), np.array([each[1] for each in pairs])
    if labels.all() or not labels.any():
        with pytest.raises(ConfigError, match="both positive and negative"):
            pair_accuracy(scores, labels)
        return
    metrics = pair_accuracy(scores, labels)
    accuracies = [((scores > threshold) == labels).mean() for threshold in (-0.1, 0.1, 0.3, 0.6, 0.9, 1.1)]
    assert metrics.best_accuracy == pytest.approx(max(accuracies))
    assert ((scores > metrics.best_threshold) == labels).mean() == pytest.approx(metrics.best_accuracy)
    wins = scores[labels][:, None] - scores[~labels]
    assert metrics.area_under_curve == pytest.approx(((wins > 0) + 0.5 * (wins == 0)).mean())


def test_histogram_counts_every_pair_once():
    histogram = score_histogram([0.0, 1.0, 0.51], [1, 0, 1], bins=4)
    assert histogram.positives.tolist() == [1, 0, 1, 0]
    assert histogram.negatives.tolist() == [0, 0, 0, 1]


def test_offset_of_the_wrong_sign_counts_as_an_error():
    metrics = offset_accuracy([3, -3, 0, 5], [3, 3, 1, 5])
    assert metrics.exact == 0.5
    assert metrics.within_one == 0.75
    assert metrics.mean_error == pytest.approx(7 / 4)


def test_arrays_of_different_length_are_rejected():
    with pytest.raises(ConfigError, match="equal length"):
        offset_accuracy([1, 2], [1])
    with pytest.raises(ConfigError, match="equal length"):
        pair_accuracy([0.1, 0.2], [1])


@pytest.mark.parametrize(("shift", "expected"), [(0, [1, 2, 3]), (1, [0, 1, 2]), (-2, [3, 0, 0]), (5, [0, 0, 0])])
def test_audio_is_shifted_and_padded_with_silence(shift: int, expected: list[float]):
    assert shift_audio(np.array([1, 2, 3], np.float32), shift).tolist() == expected


@pytest.mark.parametrize("offsets", [None, ([-3, 0, 2], [-3, 1, 2])])
def test_chart_is_written_without_leftovers(tmp_path: Path, offsets: tuple[list[int], list[int]] | None):
    path = tmp_path / "new" / "chart.png"
    draw_accuracy_chart(path, SCORES, LABELS, offsets)
    with Image.open(path) as image:
        assert np.asarray(image.convert("RGB")).std() > 10
        assert image.width > (1000 if offsets else 500)
    assert [each.name for each in path.parent.iterdir()] == ["chart.png"]
