"""Synthesized speech: audio and phoneme times agree."""

import numpy as np
import pytest

from latentsync.errors import ConfigError
from latentsync.synthetic.speech.tts import (
    LANGUAGES,
    PAUSE,
    SAMPLE_RATE,
    VARIANTS,
    join,
    resample_audio,
    silence,
    synthesize,
)


def test_phonemes_cover_the_audio_without_gaps():
    spoken = synthesize("Maybe the big boat floats past my house.", "en-us")
    assert spoken.waveform.dtype == np.float32 and np.abs(spoken.waveform).max() <= 1.0
    assert spoken.phonemes[0].start == 0.0
    for before, after in zip(spoken.phonemes, spoken.phonemes[1:], strict=False):
        assert before.end == after.start > before.start
    assert spoken.phonemes[-1].end == pytest.approx(spoken.seconds, abs=1e-3)


def test_expected_phonemes_occur_and_pauses_are_silent():
    spoken = synthesize("Bob. Fish.", "en-us", speed=120)
    symbols = [phoneme.symbol for phoneme in spoken.phonemes]
    assert symbols.count("b") == 2 and {"f", "ʃ"} <= set(symbols)
    pause = max((p for p in spoken.phonemes[1:-1] if p.symbol == PAUSE), key=lambda p: p.end - p.start)
    middle = spoken.waveform[int((pause.start + 0.1) * SAMPLE_RATE) : int((pause.end - 0.05) * SAMPLE_RATE)]
    assert len(middle) > 0 and np.abs(middle).max() < 0.02 < np.abs(spoken.waveform).max()


def test_phoneme_times_are_reproducible_and_depend_on_the_voice():
    first, again = (synthesize("One more time.", "en-us+f3") for _ in range(2))
    other = synthesize("One more time.", "en-us+m3")
    for one, two in zip(first.phonemes, again.phonemes, strict=True):
        assert one.symbol == two.symbol and one.start == pytest.approx(two.start, abs=0.01)
    assert other.phonemes != first.phonemes


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_gives_audio(language):
    assert synthesize("mama", language).seconds > 0.2


def test_voice_variants_give_audio():
    assert all(synthesize("no", f"en-us+{variant}").seconds > 0.1 for variant in VARIANTS[::6])


def test_unknown_voice_and_speed_out_of_range_are_rejected():
    with pytest.raises(ConfigError, match="no voice 'xx-nowhere'"):
        synthesize("hello", "xx-nowhere")
    with pytest.raises(ConfigError, match="Speed 20"):
        synthesize("hello", speed=20)


def test_joining_shifts_phoneme_times():
    one, two = silence(0.5), synthesize("Papa.", "en-us")
    both = join([one, two])
    assert both.seconds == pytest.approx(one.seconds + two.seconds)
    assert both.phonemes[1].start == pytest.approx(0.5) and both.phonemes[-1].end == pytest.approx(
        both.seconds, abs=1e-3
    )


def test_resampling_keeps_a_tone_and_removes_frequencies_above_nyquist():
    time = np.arange(22050) / 22050
    tone, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (1000, 9500))
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    resampled = resample_audio(tone, 22050, 16000)
    assert resampled.shape == (16000,) and np.abs(resampled - expected)[200:-200].max() < 2e-3
    assert np.abs(resample_audio(high, 22050, 16000))[200:-200].max() < 2e-2
