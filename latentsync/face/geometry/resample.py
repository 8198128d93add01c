"""Lanczos-4 resizing in torch, matching OpenCV's ``INTER_LANCZOS4`` on uint8, on any device."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from latentsync.runtime.transfer import to_device

_TAPS = 8
_FIXED_POINT = 2048  # OpenCV quantizes the coefficients for uint8 to 11 bits


@lru_cache(maxsize=32)
def _taps(size_in: int, size_out: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Source index (8, size_out) int64 and weight (8, size_out, 1) of each tap; the edge pixel is replicated.

    Cached per device, so that later calls need no host-to-device copy.
    """
    indices, weights = [], []
    scale = size_in / size_out
    for position in range(size_out):
        center = (position + 0.5) * scale - 0.5
        base = math.floor(center)
        offset = center - base
        raw = [_lanczos(offset + 3 - tap) for tap in range(_TAPS)]
        total = sum(raw)
        weights.append([round(value / total * _FIXED_POINT) / _FIXED_POINT for value in raw])
        indices.append([min(max(base - 3 + tap, 0), size_in - 1) for tap in range(_TAPS)])
    index_table = torch.tensor(indices).T.contiguous()
    return to_device(index_table, device), to_device(torch.tensor(weights).T.contiguous()[..., None], device)


def _lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    if abs(x) >= 4:
        return 0.0
    return 4 * math.sin(math.pi * x) * math.sin(math.pi * x / 4) / (math.pi * x) ** 2


def _resize_rows(pixels: Tensor, size_out: int) -> Tensor:
    """(..., h, w) float32 -> (..., size_out, w)."""
    indices, weights = _taps(pixels.shape[-2], size_out, pixels.device)
    result = pixels.index_select(-2, indices[0]) * weights[0]
    for tap in range(1, _TAPS):
        result.addcmul_(pixels.index_select(-2, indices[tap]), weights[tap])
    return result


def lanczos4_resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (..., h, w) uint8 to (..., height, width) uint8 by an 8-tap Lanczos kernel without antialiasing.

    Rounds to the nearest level and clamps to [0, 255], as OpenCV does for uint8. The same size returns the input.
    """
    if pixels.shape[-2:] == (height, width):
        return pixels
    # Indexing rows copies contiguous memory; transposing first is twice as fast as indexing columns.
    columns = pixels.float().transpose(-1, -2).contiguous()
    values = _resize_rows(_resize_rows(columns, width).transpose(-1, -2).contiguous(), height)
    return values.round_().clamp_(0, 255).to(torch.uint8)
