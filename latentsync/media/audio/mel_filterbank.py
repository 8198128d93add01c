"""Slaney-style mel filterbank, used by both the Whisper features and the SyncNet mel."""

import math
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

_LINEAR_HZ = 200.0 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    """Slaney mel scale: linear below 1 kHz, logarithmic above."""
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: Tensor) -> Tensor:
    break_mel = _BREAK_HZ / _LINEAR_HZ
    logarithmic = _BREAK_HZ * torch.exp(_LOG_STEP * (mel - break_mel))
    return torch.where(mel < break_mel, mel * _LINEAR_HZ, logarithmic)


@lru_cache(maxsize=8)
def mel_filterbank(n_fft: int, n_mels: int, fmin: float, fmax: float, sample_rate: int = 16000) -> Tensor:
    """Return area-normalized triangular filters on the Slaney mel scale, (n_mels, n_fft // 2 + 1) float32.

    `fmin` and `fmax` are in Hz. The returned tensor is shared by all callers: do not write into it.
    """
    mels = torch.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2, dtype=torch.float64)
    edges = _mel_to_hz(mels)
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    distance = rearrange(bins, "k -> 1 k") - rearrange(edges, "m -> m 1")
    widths = rearrange(edges.diff(), "m -> m 1")
    rising = distance[:-2] / widths[:-1]
    falling = -distance[2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    area = rearrange(2.0 / (edges[2:] - edges[:-2]), "m -> m 1")
    return (triangles * area).to(torch.float32)
