"""Image similarity and flicker of generated faces, measured on aligned crops.

Alignment (see `latentsync.face.geometry.affine`) puts every mouth at the same position, so a fixed box serves as mouth
region.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.errors import ConfigError

MOUTH_BOX = (0.50, 0.80, 0.25, 0.75)
"""Top, bottom, left, right of the mouth region as fractions of the crop's side; fits wide-open lips with a margin."""

_MIN_ERROR = 1e-10  # caps the PSNR of identical images at 100 dB
_SSIM_SIDE, _SSIM_SIGMA = 11, 1.5
_POOL = 1 / 64  # side of the squares over which flicker is averaged, as a fraction of the crop's side


@dataclass(frozen=True)
class Flicker:
    """Temporal instability of a region.

    Attributes:
        overall: mean absolute second difference over time, in grey levels of 0 to 255.
        still: the same over the frames in which the mouth should be still; NaN if there are none.
    """

    overall: float
    still: float


def mouth_region(crops: Tensor) -> Tensor:
    """Mouth region of aligned crops: (..., R, R) -> (..., h, w)."""
    top, bottom, left, right = (round(fraction * crops.shape[-1]) for fraction in MOUTH_BOX)
    return crops[..., top:bottom, left:right]


def psnr(pred: Tensor, true: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio over all pixels, in dB; identical images give 100.

    Args:
        pred: (t, 3, h, w) uint8.
        true: the same shape.
        weight: (h, w) in [0, 1], weight of each pixel; None weights all equally.

    Raises:
        ConfigError: shapes differ, or every weight is 0.
    """
    _check(pred, true)
    errors = torch.stack([(a.double() - b.double()).square().mean(0) for a, b in zip(pred, true)]).mean(0) / 255**2
    if weight is None:
        mean = errors.mean()
    else:
        if not weight.any():
            raise ConfigError("Cannot compute PSNR: every weight is 0; give a mask with a non-empty region")
        mean = (errors * weight).sum() / weight.sum()
    return float(-10 * torch.log10(mean.clamp_min(_MIN_ERROR)))


def ssim(pred: Tensor, true: Tensor) -> float:
    """Structural similarity of the luma (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5), 1 = identical.

    Args:
        pred: (t, 3, h, w) uint8 RGB, h and w at least 11.
        true: the same shape.

    Raises:
        ConfigError: shapes differ, or the images are too small.
    """
    _check(pred, true)
    if min(pred.shape[-2:]) < _SSIM_SIDE:
        raise ConfigError(f"SSIM needs images of at least {_SSIM_SIDE} x {_SSIM_SIDE}, got {tuple(pred.shape[-2:])}")
    total = sum(float(_ssim_map(_luma(a[None]), _luma(b[None])).mean()) for a, b in zip(pred, true))
    return total / len(pred)


def flicker(region: Tensor, still: Tensor | None = None) -> Flicker:
    """Mean absolute second difference over time, which responds to jitter but not to uniform motion.

    Computed on averages over squares of 1/64 of the crop's side, so that fine film grain does not count.

    Args:
        region: (t, 3, h, w) uint8 `mouth_region` of consecutive frames, t >= 3.
        still: (t,) bool, frames in which the mouth should not move.

    Raises:
        ConfigError: fewer than three frames.
    """
    if len(region) < 3:
        raise ConfigError(f"Measuring flicker needs at least three frames, got {len(region)}")
    side = max(1, round(region.shape[-1] / (MOUTH_BOX[3] - MOUTH_BOX[2]) * _POOL))
    small = torch.cat([F.avg_pool2d(part.float(), side) for part in region.split(16)])
    second_difference = (small[2:] - 2 * small[1:-1] + small[:-2]).abs().mean((1, 2, 3))
    if still is None:
        return Flicker(float(second_difference.mean()), float("nan"))
    all_still = still[2:] & still[1:-1] & still[:-2]
    return Flicker(float(second_difference.mean()), float(second_difference[all_still].mean()))


def still_frames(mouth: Tensor, tolerance: float = 0.02) -> Tensor:
    """Frames in which the mouth is still.

    Args:
        mouth: (t, k) ground-truth mouth parameters of every frame.
        tolerance: largest change relative to the previous and the next frame.

    Returns:
        (t,) bool.
    """
    steps = (mouth[1:] - mouth[:-1]).abs().amax(1) <= tolerance
    ends = torch.ones(1, dtype=torch.bool, device=mouth.device)
    return torch.cat([ends, steps]) & torch.cat([steps, ends])


def _check(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim != 4 or not len(pred):
        raise ConfigError(
            f"Cannot compare images {tuple(pred.shape)} with {tuple(true.shape)}: expected equal shapes (t, 3, h, w)"
        )


def _luma(images: Tensor) -> Tensor:
    """(t, 3, h, w) uint8 RGB -> (t, 1, h, w) float32 luma, 0 to 255 (BT.601)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    return (images.float() * weights).sum(1, keepdim=True)


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """(t, 1, h, w) each, 0 to 255 -> similarity (t, 1, h - 10, w - 10)."""
    offsets = torch.arange(_SSIM_SIDE, device=x.device) - _SSIM_SIDE // 2
    kernel = torch.exp(-(offsets.float() ** 2) / (2 * _SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, kernel[None, None, :, None]), kernel[None, None, None, :])

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
