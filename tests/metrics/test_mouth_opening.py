"""Mouth opening measured in frames."""

import random

import numpy as np
import pytest

from latentsync.metrics.mouth_opening import MouthMeter, correlation
from latentsync.synthetic.head.appearance import Identity, sample_motion
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS


def test_measured_opening_follows_the_rendered_mouth() -> None:
    openings = np.linspace(0, 0.9, 8, dtype=np.float32)
    mouth = np.zeros((8, len(MOUTH_PARAMETERS)), np.float32)
    mouth[:, 0] = openings
    state = HeadState(mouth, sample_motion(8, 25, random.Random(1), liveliness=0.3), Identity())
    renderer = HeadRenderer()
    frames = (renderer.render(state, 256).movedim(1, -1) * 255).byte().numpy()
    with MouthMeter() as meter:
        measured = np.array([meter.opening(np.ascontiguousarray(frame)) for frame in frames])
    assert correlation(measured, renderer.mouth_opening(state).numpy().astype(np.float64)) > 0.9


def test_opening_is_nan_without_a_face() -> None:
    with MouthMeter() as meter:
        assert np.isnan(meter.opening(np.full((128, 128, 3), 127, np.uint8)))


@pytest.mark.parametrize("shift", [-4, 0, 3])
def test_correlation_compensates_the_shift(shift: int) -> None:
    true = np.random.default_rng(0).normal(size=60)
    measured = np.roll(true, shift)
    measured[7] = np.nan
    assert correlation(measured, true, shift) == pytest.approx(1.0)
    assert abs(correlation(measured, true, shift + 1)) < 0.5


def test_correlation_is_nan_for_constant_or_missing_samples() -> None:
    assert np.isnan(correlation(np.full(10, np.nan), np.arange(10.0)))
    assert np.isnan(correlation(np.zeros(10), np.arange(10.0)))
