"""Lanczos-4 resizing in torch, equal to OpenCV's ``INTER_LANCZOS4`` on uint8 and running on any device."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_TAPS = 8
_FIXED_POINT = 2048  # OpenCV keeps uint8 coefficients in 11 bits


@lru_cache(maxsize=32)
def _taps(size_in: int, size_out: int) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[float, ...], ...]]:
    """Source index and weight of each of the 8 taps for every output position; borders repeat the edge pixel."""
    indices, weights = [], []
    scale = size_in / size_out
    for position in range(size_out):
        centre = (position + 0.5) * scale - 0.5
        base = math.floor(centre)
        offset = centre - base
        raw = [_lanczos(offset + 3 - tap) for tap in range(_TAPS)]
        total = sum(raw)
        weights.append([round(value / total * _FIXED_POINT) / _FIXED_POINT for value in raw])
        indices.append([min(max(base - 3 + tap, 0), size_in - 1) for tap in range(_TAPS)])
    return tuple(zip(*indices, strict=True)), tuple(zip(*weights, strict=True))


def _lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    if abs(x) >= 4:
        return 0.0
    return 4 * math.sin(math.pi * x) * math.sin(math.pi * x / 4) / (math.pi * x) ** 2


def _resize_rows(pixels: Tensor, size_out: int) -> Tensor:
    """(..., h, w) float -> (..., size_out, w)."""
    indices, weights = _taps(pixels.shape[-2], size_out)
    index_table = torch.tensor(indices, device=pixels.device)
    weight_table = torch.tensor(weights, dtype=pixels.dtype, device=pixels.device)[..., None]
    result = pixels.index_select(-2, index_table[0]) * weight_table[0]
    for tap in range(1, _TAPS):
        result.addcmul_(pixels.index_select(-2, index_table[tap]), weight_table[tap])
    return result


def lanczos4_resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (..., h, w) uint8 to (..., height, width) uint8 by an 8-tap Lanczos kernel without antialiasing.

    Rounds to the nearest level and clamps to [0, 255], as OpenCV does for uint8. The same size returns the input.
    """
    if pixels.shape[-2:] == (height, width):
        return pixels
    values = pixels.float()
    values = _resize_rows(values.transpose(-1, -2), width).transpose(-1, -2)
    values = _resize_rows(values, height)
    return values.round_().clamp_(0, 255).to(torch.uint8)
