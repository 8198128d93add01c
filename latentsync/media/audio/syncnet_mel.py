"""StableSyncNet's 80-band mel spectrogram and the columns that belong to a window of frames."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from latentsync.media.audio.mel_filterbank import mel_filterbank

SAMPLE_RATE = 16000
N_MELS = 80
COLUMNS_PER_SECOND = 80
VIDEO_FPS = 25
"""Frame rate that aligns frame windows with mel windows, whatever the clip's own rate."""

_HOP = SAMPLE_RATE // COLUMNS_PER_SECOND
_N_FFT = 800
_LOWEST_HZ, _HIGHEST_HZ = 55.0, 7600.0
_PRE_EMPHASIS = 0.97
_FLOOR = 1e-5
_REFERENCE_DB = 20.0
_RANGE_DB = 100.0
_MAX_VALUE = 4.0


def syncnet_mel(waveform: Tensor) -> Tensor:
    """Return the mel spectrogram of a whole recording.

    Args:
        waveform: (n,) float32, 16 kHz mono, in [-1, 1].

    Returns:
        (80, n // 200 + 1) float32 in [-4, 4], where -4 is -100 dB or less; 80 columns per second, column k centered
        on sample 200 k.
    """
    delayed = torch.nn.functional.pad(waveform[:-1], (1, 0))
    emphasized = waveform - _PRE_EMPHASIS * delayed
    spectrum = torch.stft(
        emphasized, _N_FFT, _HOP, window=_window(), center=True, pad_mode="constant", return_complex=True
    )
    magnitude = mel_filterbank(_N_FFT, N_MELS, _LOWEST_HZ, _HIGHEST_HZ, SAMPLE_RATE) @ spectrum.abs()
    decibels = 20 * magnitude.clamp(min=_FLOOR).log10() - _REFERENCE_DB
    return (2 * _MAX_VALUE * (decibels + _RANGE_DB) / _RANGE_DB - _MAX_VALUE).clamp(-_MAX_VALUE, _MAX_VALUE)


def mel_columns(num_frames: int) -> int:
    """Number of mel columns of ``num_frames`` frames: ceil(num_frames / 5 * 16), 52 for 16 and 80 for 25."""
    return math.ceil(num_frames * 16 / 5)


def mel_window(mel: Tensor, start: int, num_frames: int) -> Tensor | None:
    """Return the columns of the frames ``start`` ... ``start + num_frames - 1`` at 25 frames per second.

    Args:
        mel: (80, m) of the whole clip.
        start: first frame, from 0.
        num_frames: of the window.

    Returns:
        (80, `mel_columns(num_frames)`), or None if the audio ends before the window.
    """
    first = COLUMNS_PER_SECOND * start // VIDEO_FPS
    columns = mel[:, first : first + mel_columns(num_frames)]
    return columns if columns.shape[1] == mel_columns(num_frames) else None


def num_mel_windows(columns: int, num_frames: int) -> int:
    """Number of start frames 0, 1, 2, ... that have a complete window in a mel of ``columns`` columns."""
    last_first_column = columns - mel_columns(num_frames)
    if last_first_column < 0:
        return 0
    # The largest start with 80 * start // 25 <= last_first_column, counted from 0.
    return (VIDEO_FPS * (last_first_column + 1) - 1) // COLUMNS_PER_SECOND + 1


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(_N_FFT)
