"""Mouth curves: bilabials close the lips, and curves are smooth and in range."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.synthetic.speech.tts import Phoneme, synthesize
from latentsync.synthetic.speech.visemes import (
    MOUTH_PARAMETERS,
    OPEN,
    PRESS,
    ROUNDING,
    TUCK,
    VISEME_NAMES,
    mouth_curve,
    viseme_classes,
    viseme_spans,
)

SYMBOLS = ["", "m", "a", "u", "s", "f", "tʃ", "aɪ", "?"]


def word(*symbols, seconds=0.12):
    return [Phoneme(s, i * seconds, (i + 1) * seconds, True) for i, s in enumerate(symbols)]


@pytest.mark.parametrize("consonant", ["m", "b", "p"])
def test_bilabials_close_the_lips_between_open_vowels(consonant):
    curve = mouth_curve(word("a", consonant, "a"), 36, 100)
    assert curve[18, OPEN] < 1e-3 and curve[18, PRESS] > 0.99
    assert curve[5, OPEN] > 0.6 and curve[31, OPEN] > 0.6


def test_every_bilabial_in_synthesized_speech_has_a_closed_frame_at_25_fps():
    spoken = synthesize("Maybe my mum bought a big purple map. Bob probably remembered.", "en-us+m3", 180)
    curve = mouth_curve(spoken.phonemes, round(spoken.seconds * 25), 25)
    for phoneme in spoken.phonemes:
        if phoneme.symbol in ("m", "b", "p"):
            center = round((phoneme.start + phoneme.end) / 2 * 25)
            assert curve[max(0, center - 1) : center + 2, OPEN].min() < 0.05, phoneme


def test_labiodentals_tuck_the_lip_and_rounded_vowels_round_it():
    curve = mouth_curve(word("", "f", "", "u", "", seconds=0.3), 150, 100)
    assert curve[45, TUCK] > 0.9 and curve[45, OPEN] < 0.2
    assert curve[105, ROUNDING] > 0.8
    assert curve[10, OPEN] < 0.05 and curve[145, OPEN] < 0.05


def test_diphthongs_and_affricates_give_several_visemes():
    names = [
        span.name for span in viseme_spans([Phoneme("aʊ", 0, 0.2), Phoneme("tʃ", 0.2, 0.3), Phoneme("aː", 0.3, 0.4)])
    ]
    assert names == ["open", "close_back", "alveolar", "postalveolar", "open"]


def test_viseme_classes_follow_the_phonemes():
    classes = viseme_classes([Phoneme("m", 0.0, 0.1), Phoneme("a", 0.1, 0.2)], 15, 50)
    assert [VISEME_NAMES[c] for c in classes] == ["bilabial"] * 5 + ["open"] * 5 + ["rest"] * 5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SYMBOLS), st.floats(0.03, 0.4)), max_size=12),
    st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(12)]),
)
def test_any_phoneme_sequence_gives_a_smooth_curve_in_range(durations, fps):
    start, phonemes = 0.0, []
    for symbol, seconds in durations:
        phonemes.append(Phoneme(symbol, start, start + seconds))
        start += seconds
    curve = mouth_curve(phonemes, 40, fps)
    assert curve.shape == (40, len(MOUTH_PARAMETERS)) and curve.dtype == np.float32
    assert np.isfinite(curve).all() and curve.min() >= -1 and curve.max() <= 1
    assert curve[:, OPEN].min() >= 0
    fine = mouth_curve(phonemes, 400, 200)
    # The lips take at least 50 ms to part or close, ten steps of this curve.
    assert np.abs(np.diff(fine[:, OPEN], axis=0)).max() < 0.25


def test_curve_values_do_not_depend_on_the_frame_rate():
    phonemes = word("a", "m", "i", "f", "o")
    np.testing.assert_allclose(mouth_curve(phonemes, 15, 25), mouth_curve(phonemes, 30, 50)[::2], atol=1e-6)


def test_zero_frames_are_rejected():
    with pytest.raises(ConfigError, match="positive"):
        mouth_curve([], 0, 25)
