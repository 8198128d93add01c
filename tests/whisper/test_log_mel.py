"""Log-mel spectrogram: equal to the published one, for any slicing."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentsync.errors import MediaError
from latentsync.whisper.log_mel import LogMel, log_mel

LONG_COLUMNS = 7200  # three 30 s chunks, so that the floor comes from a chunk outside most slices


@functools.cache
def long_recording() -> tuple[LogMel, Tensor]:
    """72 s of rising noise with one loud second: the lazy and the full spectrogram."""
    generator = torch.Generator().manual_seed(1)
    samples = LONG_COLUMNS * 160
    waveform = torch.randn(samples, generator=generator) * torch.linspace(1e-5, 1e-3, samples)
    waveform[40 * 16000 : 41 * 16000] += 0.3 * torch.sin(2 * math.pi * 440 / 16000 * torch.arange(16000))
    spectrogram = LogMel(waveform)
    return spectrogram, spectrogram[:]


def test_log_mel_equals_the_published_one(golden):
    case = golden("whisper_logmel_2s")
    case.check("logmel", log_mel(case.inputs["waveform_i16"].float() / 32768))


@given(start=st.integers(0, LONG_COLUMNS), length=st.integers(0, 500))
def test_any_slice_equals_the_whole(start, length):
    spectrogram, whole = long_recording()
    torch.testing.assert_close(spectrogram[start : start + length], whole[:, start : start + length], atol=2e-5, rtol=0)


def test_floor_follows_the_maximum_of_the_whole_file():
    _, whole = long_recording()
    assert whole.min() == pytest.approx(float(whole.max()) - 2.0, abs=1e-5)
    assert whole[:, :3000].min() == whole.min()


@given(samples=st.integers(0, 2000))
def test_columns_are_samples_over_160(samples):
    waveform = torch.linspace(-0.5, 0.5, samples)
    spectrogram = log_mel(waveform)
    assert spectrogram.shape == (80, samples // 160)
    assert torch.isfinite(spectrogram).all()


def test_silence_is_constant():
    assert log_mel(torch.zeros(16000)).unique().tolist() == [-1.5]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_samples_are_refused(bad):
    waveform = torch.zeros(16000)
    waveform[9000] = bad
    with pytest.raises(MediaError, match="not finite"):
        LogMel(waveform)


def test_several_channels_are_refused():
    with pytest.raises(MediaError, match="one channel"):
        LogMel(torch.from_numpy(np.zeros((2, 16000), np.float32)))
