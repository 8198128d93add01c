"""The 80-band mel spectrogram that StableSyncNet hears, and which of its columns belong to a window of frames."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from latentsync.media.audio.mel_filterbank import mel_filterbank

SAMPLE_RATE = 16000
N_MELS = 80
COLUMNS_PER_SECOND = 80
VIDEO_FPS = 25
"""Frame rate by which windows of frames and of sound belong together, whatever the clip's own rate is."""

_HOP = SAMPLE_RATE // COLUMNS_PER_SECOND
_N_FFT = 800
_LOWEST_HZ, _HIGHEST_HZ = 55.0, 7600.0
_PRE_EMPHASIS = 0.97
_FLOOR = 1e-5
_REFERENCE_DB = 20.0
_RANGE_DB = 100.0
_GREATEST = 4.0


def syncnet_mel(waveform: Tensor) -> Tensor:
    """Return the mel spectrogram of a whole recording.

    Args:
        waveform: (n,) float32, 16 kHz mono, in [-1, 1].

    Returns:
        (80, n // 200 + 1) float32 in [-4, 4]: -4 is silence of -100 dB and less, 80 columns a second; column k is
        centred on sample 200 k.
    """
    delayed = torch.nn.functional.pad(waveform[:-1], (1, 0))
    emphasised = waveform - _PRE_EMPHASIS * delayed
    spectrum = torch.stft(
        emphasised, _N_FFT, _HOP, window=_window(), center=True, pad_mode="constant", return_complex=True
    )
    magnitude = mel_filterbank(_N_FFT, N_MELS, _LOWEST_HZ, _HIGHEST_HZ, SAMPLE_RATE) @ spectrum.abs()
    decibels = 20 * magnitude.clamp(min=_FLOOR).log10() - _REFERENCE_DB
    return (2 * _GREATEST * (decibels + _RANGE_DB) / _RANGE_DB - _GREATEST).clamp(-_GREATEST, _GREATEST)


def mel_columns(num_frames: int) -> int:
    """Columns that belong to ``num_frames`` frames: ceil(num_frames / 5 * 16), 52 for 16 and 80 for 25."""
    return math.ceil(num_frames * 16 / 5)


def mel_window(mel: Tensor, start: int, num_frames: int) -> Tensor | None:
    """Return the columns of the frames ``start`` ... ``start + num_frames - 1`` at 25 frames a second.

    Args:
        mel: (80, m) of the whole clip.
        start: first frame, from 0.
        num_frames: of the window.

    Returns:
        (80, `mel_columns(num_frames)`), or None where the sound ends before the window does.
    """
    first = COLUMNS_PER_SECOND * start // VIDEO_FPS
    columns = mel[:, first : first + mel_columns(num_frames)]
    return columns if columns.shape[1] == mel_columns(num_frames) else None


def num_mel_windows(columns: int, num_frames: int) -> int:
    """How many starts 0, 1, 2, ... have a complete window in a mel of ``columns`` columns."""
    last_first_column = columns - mel_columns(num_frames)
    if last_first_column < 0:
        return 0
    # The largest start with 80 * start // 25 <= last_first_column, counted from 0.
    return (VIDEO_FPS * (last_first_column + 1) - 1) // COLUMNS_PER_SECOND + 1


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(_N_FFT)
