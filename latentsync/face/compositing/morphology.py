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


def _blur_matrix(size: int, radius: int, sigma: float, like: Tensor) -> Tensor:
    """(size, size): row i holds the weights with which a line's pixels enter pixel i, reflected ones included."""
    position = torch.arange(size, device=like.device, dtype=like.dtype)
    here, there = position[:, None], position[None, :]

    def weight(distance: Tensor) -> Tensor:
        return torch.exp(distance**2 * (-0.5 / sigma**2)).masked_fill_(distance.abs() > radius, 0)

    # The edge pixels are not repeated, so they are their own reflections.
    before = weight(-there - here).masked_fill_(there == 0, 0)
    after = weight(2 * (size - 1) - there - here).masked_fill_(there == size - 1, 0)
    weights = weight(there - here) + before + after
    return weights / weights.sum(dim=1, keepdim=True)


def gaussian_blur(masks: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur (..., h, w) float with 2*radius+1 taps; the border reflects without repeating the edge pixel.

    radius must be below h and w. Done by a matrix product on each side: faster than a convolution of one channel, and
    a GPU's convolution library prepares anew for every size, which changes with the face.
    """
    if radius == 0:
        return masks
    height, width = masks.shape[-2:]
    across = masks @ _blur_matrix(width, radius, sigma, masks).T
    return _blur_matrix(height, radius, sigma, masks) @ across
