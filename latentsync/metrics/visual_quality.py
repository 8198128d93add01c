"""How near made faces come to the true ones, and how much they flicker; all on aligned crops.

A crop (see `latentsync.face.geometry.affine`) has every mouth at one place, so a fixed box does as the mouth's region.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.errors import ConfigError

MOUTH_BOX = (0.50, 0.80, 0.25, 0.75)
"""Top, bottom, left, right of the mouth's region as shares of the crop's side; holds lips wide open with a margin."""

_WORST_ERROR = 1e-10  # equal pictures count as 100 dB
_SSIM_SIDE, _SSIM_SIGMA = 11, 1.5
_POOL = 1 / 64  # side of the squares that flicker is judged in, as a share of the crop's


@dataclass(frozen=True)
class Flicker:
    """How restless a region is.

    Attributes:
        moving: mean absolute second difference over time of all frames, in grey levels of 0 to 255.
        still: the same where the mouth should stand still; NaN where it never does.
    """

    moving: float
    still: float


def mouth_region(crops: Tensor) -> Tensor:
    """Cut the mouth's region out of aligned crops: (..., R, R) -> (..., h, w)."""
    top, bottom, left, right = (round(share * crops.shape[-1]) for share in MOUTH_BOX)
    return crops[..., top:bottom, left:right]


def psnr(pred: Tensor, true: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio over all pixels, in dB; equal pictures give 100.

    Args:
        pred: (t, 3, h, w) uint8.
        true: the same shape.
        weight: (h, w) in [0, 1], how much each pixel counts; None counts all alike.

    Raises:
        ConfigError: shapes differ, or every weight is 0.
    """
    _check(pred, true)
    errors = torch.stack([(a.double() - b.double()).square().mean(0) for a, b in zip(pred, true)]).mean(0) / 255**2
    if weight is None:
        mean = errors.mean()
    else:
        if not weight.any():
            raise ConfigError("No pixel counts for PSNR: every weight is 0; give a mask with a region in it")
        mean = (errors * weight).sum() / weight.sum()
    return float(-10 * torch.log10(mean.clamp_min(_WORST_ERROR)))


def ssim(pred: Tensor, true: Tensor) -> float:
    """Structural similarity of the brightness (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5), 1 = equal.

    Args:
        pred: (t, 3, h, w) uint8 RGB, h and w at least 11.
        true: the same shape.

    Raises:
        ConfigError: shapes differ, or the pictures are too small.
    """
    _check(pred, true)
    if min(pred.shape[-2:]) < _SSIM_SIDE:
        raise ConfigError(f"SSIM needs pictures of at least {_SSIM_SIDE} x {_SSIM_SIDE}, got {tuple(pred.shape[-2:])}")
    total = sum(float(_ssim_map(_luma(a[None]), _luma(b[None])).mean()) for a, b in zip(pred, true))
    return total / len(pred)


def flicker(region: Tensor, still: Tensor | None = None) -> Flicker:
    """Mean absolute second difference over time: what jumps to and fro counts, what moves evenly does not.

    Judged on means of squares as large as 1/64 of the crop, so that film grain, which the eye does not follow, is no
    flicker.

    Args:
        region: (t, 3, h, w) uint8 `mouth_region` of consecutive frames, t >= 3.
        still: (t,) bool, frames in which the mouth should not move.

    Raises:
        ConfigError: fewer than three frames.
    """
    if len(region) < 3:
        raise ConfigError(f"Flicker needs three frames or more, got {len(region)}")
    side = max(1, round(region.shape[-1] / (MOUTH_BOX[3] - MOUTH_BOX[2]) * _POOL))
    small = torch.cat([F.avg_pool2d(part.float(), side) for part in region.split(16)])
    restless = (small[2:] - 2 * small[1:-1] + small[:-2]).abs().mean((1, 2, 3))
    if still is None:
        return Flicker(float(restless.mean()), float("nan"))
    quiet = still[2:] & still[1:-1] & still[:-2]
    return Flicker(float(restless.mean()), float(restless[quiet].mean()))


def still_frames(mouth: Tensor, tolerance: float = 0.02) -> Tensor:
    """Which frames show a mouth that stands still.

    Args:
        mouth: (t, k) true mouth parameters of every frame.
        tolerance: largest change to the frames before and after.

    Returns:
        (t,) bool.
    """
    steps = (mouth[1:] - mouth[:-1]).abs().amax(1) <= tolerance
    ends = torch.ones(1, dtype=torch.bool, device=mouth.device)
    return torch.cat([ends, steps]) & torch.cat([steps, ends])


def _check(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim != 4 or not len(pred):
        raise ConfigError(
            f"Cannot compare pictures {tuple(pred.shape)} with {tuple(true.shape)}: expected equal (t, 3, h, w)"
        )


def _luma(images: Tensor) -> Tensor:
    """(t, 3, h, w) uint8 RGB -> (t, 1, h, w) float32 brightness, 0 to 255 (BT.601)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    return (images.float() * weights).sum(1, keepdim=True)


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """(t, 1, h, w) each, 0 to 255 -> similarity (t, 1, h - 10, w - 10)."""
    positions = torch.arange(_SSIM_SIDE, device=x.device) - _SSIM_SIDE // 2
    line = torch.exp(-(positions.float() ** 2) / (2 * _SSIM_SIGMA**2))
    line = line / line.sum()

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, line[None, None, :, None]), line[None, None, None, :])

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    shared = mean(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * shared + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
