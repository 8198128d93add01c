"""Light augmentation of frame windows, so that SyncNet learns the mouth rather than the camera."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError


@dataclass(frozen=True)
class FrameAugmentation:
    """Maximum strength of each augmentation; the actual strength is uniform between none and the maximum.

    Attributes:
        brightness: added to or subtracted from all pixels, as a fraction of the full range.
        contrast: relative change of the contrast around the window's mean.
        translation: shift of the whole window, as a fraction of its side; edge pixels are replicated.
        noise: standard deviation of per-pixel noise, as a fraction of the full range.
        jpeg: every frame is JPEG-compressed at a quality between 100 - jpeg and 100; 0 disables it.
        prob: probability that a window is augmented at all.
    """

    brightness: float = 0.1
    contrast: float = 0.15
    translation: float = 0.03
    noise: float = 0.015
    jpeg: int = 60
    prob: float = 0.8

    def __post_init__(self) -> None:
        """Raises ConfigError on a value out of range."""
        fractions = (self.brightness, self.contrast, self.translation, self.noise, self.prob)
        if not all(0 <= fraction <= 1 for fraction in fractions) or not 0 <= self.jpeg <= 95:
            raise ConfigError(f"Augmentation strengths must be between 0 and 1 and jpeg between 0 and 95; got {self}.")


def augment_window(frames: Tensor, strength: FrameAugmentation, rng: np.random.Generator) -> Tensor:
    """Apply the same augmentation to all frames of a window; only the noise differs between frames.

    Args:
        frames: (f, 3, h, w) uint8.
        strength: maximum strengths.
        rng: random generator; the number of draws does not depend on the outcome, except for the noise.

    Returns:
        (f, 3, h, w) uint8.
    """
    is_augmented = rng.random() < strength.prob
    brightness, contrast, down, right = rng.uniform(-1, 1, 4)
    noise, compression = rng.uniform(0, 1, 2)
    if not is_augmented:
        return frames
    pixels = frames.float()
    mean = pixels.mean()
    pixels = (pixels - mean) * (1 + contrast * strength.contrast) + mean + 255 * brightness * strength.brightness
    max_shift = strength.translation * frames.shape[-1]
    pixels = _shift(pixels, round(down * max_shift), round(right * max_shift))
    if strength.noise:
        grain = rng.standard_normal(tuple(pixels.shape), dtype=np.float32)
        pixels += torch.from_numpy(grain) * float(255 * noise * strength.noise)
    augmented = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return _jpeg_compress(augmented, 100 - round(compression * strength.jpeg)) if strength.jpeg else augmented


def _shift(pixels: Tensor, down: int, right: int) -> Tensor:
    pad = max(abs(down), abs(right))
    if pad == 0:
        return pixels
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (pad,) * 4, mode="replicate")
    return padded[..., pad - down : pad - down + height, pad - right : pad - right + width].clone()


def _jpeg_compress(frames: Tensor, quality: int) -> Tensor:
    images = []
    for image in rearrange(frames, "f c h w -> f h w c").numpy():
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        images.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return rearrange(torch.from_numpy(np.stack(images)), "f h w c -> f c h w").contiguous()
