"""Erosion and Gaussian blur of masks: separable, batched, on any device, equal to OpenCV's float32 results."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _running_minimum(values: Tensor, before: int, after: int) -> Tensor:
    """Minimum over x-before .. x+after along the last dimension; places off the end do not count.

    Doubles the window at every step, so a kernel of 150 pixels costs nine passes instead of 150.
    """
    length = before + after + 1
    size = values.shape[-1]
    result = F.pad(values, (before, after), value=float("inf"))
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        result = torch.minimum(result[..., : result.shape[-1] - step], result[..., step:])
        covered += step
    return result[..., :size]


def erode(masks: Tensor, before: int, after: int) -> Tensor:
    """Minimum of (..., h, w) over the square that reaches `before` pixels left and up, `after` right and down.

    The picture's border does not erode (OpenCV's default for ``erode``).
    """
    rows = _running_minimum(masks, before, after)
    return _running_minimum(rows.transpose(-1, -2), before, after).transpose(-1, -2)


def gaussian_blur(masks: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur (f, 1, h, w) float with 2*radius+1 taps; the border reflects without repeating the edge pixel."""
    if radius == 0:
        return masks
    offsets = torch.arange(-radius, radius + 1, device=masks.device, dtype=masks.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    blurred = F.conv2d(F.pad(masks, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(blurred, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))
