"""Silence detection: long silences only, relative to the track level, with fades at either end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from latentsync.errors import ConfigError
from latentsync.media.audio.silence import SilenceOptions, speech_weights

RATE, FPS = 16000, Fraction(25)


def make_noise(*parts: tuple[float, float]) -> np.ndarray:
    """Concatenated noise segments of (seconds, level)."""
    generator = np.random.default_rng(3)
    pieces = [level * generator.standard_normal(round(seconds * RATE)) for seconds, level in parts]
    return np.concatenate(pieces).astype(np.float32)


def weights(waveform: np.ndarray, num_frames: int | None = None, fps: Fraction = FPS) -> np.ndarray:
    count = round(len(waveform) / RATE * fps) if num_frames is None else num_frames
    return speech_weights(waveform, RATE, fps, count)


def test_long_silence_has_weight_zero_with_a_fade_on_both_sides() -> None:
    weight = weights(make_noise((1.0, 0.1), (1.0, 0.0), (1.0, 0.1)))
    assert (weight[:25] == 1).all() and (weight[50:] == 1).all()
    silent = weight[25:50]
    assert silent[:2].tolist() == silent[-2:].tolist() == [1, 1]  # the mouth closes late and opens early
    assert (np.diff(silent[1:7]) < 0).all() and (silent[7:18] == 0).all()
    np.testing.assert_allclose(silent, silent[::-1], atol=1e-6)


def test_silence_at_the_ends_of_the_track_has_no_outer_fade() -> None:
    weight = weights(make_noise((0.8, 0.0), (1.0, 0.1), (0.8, 0.0)))
    assert weight[0] == weight[-1] == 0
    assert (weight[20:45] == 1).all()


def test_short_pauses_count_as_speech() -> None:
    assert (weights(make_noise((1.0, 0.1), (0.4, 0.0), (1.0, 0.1))) == 1).all()


@pytest.mark.parametrize(("level", "kept"), [(1e-4, True), (1e-2, False)])
def test_silence_threshold_is_relative_to_the_track(level: float, kept: bool) -> None:
    for gain in (1.0, 0.01):
        weight = weights(gain * make_noise((1.0, 0.1), (1.0, level), (1.0, 0.1)))
        assert bool((weight == 0).any()) == kept


def test_dc_offset_counts_as_silence() -> None:
    assert (weights(make_noise((1.0, 0.1), (1.0, 0.0), (1.0, 0.1)) + 0.2)[35:40] == 0).all()


@pytest.mark.parametrize("waveform", [np.zeros(RATE, np.float32), make_noise((1.0, 1e-5)), np.zeros(1, np.float32)])
def test_track_without_speech_has_weight_one(waveform: np.ndarray) -> None:
    assert (weights(waveform, 25) == 1).all()


def test_frames_beyond_the_audio_are_silent_and_a_preview_equals_the_full_result() -> None:
    speech = make_noise((1.0, 0.0), (1.0, 0.1))
    assert (weights(speech, 75)[-15:] == 0).all()
    for frames in (5, 20):
        assert (weights(speech, frames) == weights(speech, 75)[:frames]).all()
    assert (weights(speech, 5) == 0).all()


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(12), Fraction(60)])
def test_other_frame_rates_find_the_same_silence(fps: Fraction) -> None:
    weight = weights(make_noise((1.0, 0.1), (2.0, 0.0), (1.0, 0.1)), fps=fps)
    seconds = np.flatnonzero(weight < 1) / float(fps)
    assert 1.0 <= seconds.min() <= 1.25 and 2.75 <= seconds.max() <= 3.0


def test_fades_longer_than_the_silence_are_refused() -> None:
    with pytest.raises(ConfigError, match="fit"):
        SilenceOptions(min_duration=0.3)
