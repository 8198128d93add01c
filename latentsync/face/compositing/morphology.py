"""Erosion and Gaussian blur of masks: separable, batched, on any device, matching OpenCV's float32 results."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _running_minimum(values: Tensor, before: int, after: int) -> Tensor:
    """Minimum over x-before .. x+after along the last dimension, ignoring positions beyond either end.

    The window doubles at every step, so a kernel of 150 pixels takes nine passes instead of 150.
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
    """Minimum of (..., h, w) over a square spanning `before` pixels left and up, `after` pixels right and down.

    Pixels beyond the image border do not erode (OpenCV's default for ``erode``).
    """
    rows = _running_minimum(masks, before, after)
    return _running_minimum(rows.transpose(-1, -2), before, after).transpose(-1, -2)


def _blur_matrix(size: int, radius: int, sigma: float, like: Tensor) -> Tensor:
    """(size, size) 1-D blur operator: row i holds the weights of all input pixels, reflections folded in."""
    position = torch.arange(size, device=like.device, dtype=like.dtype)
    target, source = position[:, None], position[None, :]

    def weight(distance: Tensor) -> Tensor:
        return torch.exp(distance**2 * (-0.5 / sigma**2)).masked_fill_(distance.abs() > radius, 0)

    # An edge pixel is its own reflection and must not count twice.
    before = weight(-source - target).masked_fill_(source == 0, 0)
    after = weight(2 * (size - 1) - source - target).masked_fill_(source == size - 1, 0)
    weights = weight(source - target) + before + after
    return weights / weights.sum(dim=1, keepdim=True)


def blur_masks(masks: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur (..., h, w) float with 2*radius+1 taps; the border reflects without repeating the edge pixel.

    radius must be below h and w. Implemented as one matrix product per axis: faster than a single-channel convolution,
    and cuDNN would select an algorithm anew for every mask size, which varies with the face.
    """
    if radius == 0:
        return masks
    height, width = masks.shape[-2:]
    rows_blurred = masks @ _blur_matrix(width, radius, sigma, masks).T
    return _blur_matrix(height, radius, sigma, masks) @ rows_blurred
