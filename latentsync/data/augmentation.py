"""Light changes to the frames of a window, so that SyncNet learns the mouth and not the camera."""

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
    """Greatest strength of each change; what is drawn lies evenly between none and that.

    Attributes:
        brightness: added to all pixels, as a share of the full range, up or down.
        contrast: pixels are spread about the window's mean by up to this share more or less.
        translation: shift of the whole window, as a share of its side; borders repeat.
        noise: standard deviation of noise on each pixel, as a share of the full range.
        jpeg: every frame is compressed at a quality between 100 - jpeg and 100; 0 leaves it out.
        prob: of the windows that are changed at all.
    """

    brightness: float = 0.1
    contrast: float = 0.15
    translation: float = 0.03
    noise: float = 0.015
    jpeg: int = 60
    prob: float = 0.8

    def __post_init__(self) -> None:
        """Raises ConfigError on a value out of range."""
        shares = (self.brightness, self.contrast, self.translation, self.noise, self.prob)
        if not all(0 <= prob <= 1 for prob in shares) or not 0 <= self.jpeg <= 95:
            raise ConfigError(f"Augmentation strengths are shares from 0 to 1, jpeg is 0 to 95; got {self}.")


def augment_window(frames: Tensor, strength: FrameAugmentation, rng: np.random.Generator) -> Tensor:
    """Change all frames of a window alike; only noise differs from frame to frame.

    Args:
        frames: (f, 3, h, w) uint8.
        strength: of the changes.
        rng: source of chance; takes the same number of draws whatever comes out, noise aside.

    Returns:
        (f, 3, h, w) uint8.
    """
    is_changed = rng.random() < strength.prob
    brightness, contrast, down, right = rng.uniform(-1, 1, 4)
    noise, compression = rng.uniform(0, 1, 2)
    if not is_changed:
        return frames
    pixels = frames.float()
    mean = pixels.mean()
    pixels = (pixels - mean) * (1 + contrast * strength.contrast) + mean + 255 * brightness * strength.brightness
    reach = strength.translation * frames.shape[-1]
    pixels = _shifted(pixels, round(down * reach), round(right * reach))
    if strength.noise:
        grain = rng.standard_normal(tuple(pixels.shape), dtype=np.float32)
        pixels += torch.from_numpy(grain) * float(255 * noise * strength.noise)
    changed = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return _compressed(changed, 100 - round(compression * strength.jpeg)) if strength.jpeg else changed


def _shifted(pixels: Tensor, down: int, right: int) -> Tensor:
    reach = max(abs(down), abs(right))
    if reach == 0:
        return pixels
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    return padded[..., reach - down : reach - down + height, reach - right : reach - right + width].clone()


def _compressed(frames: Tensor, quality: int) -> Tensor:
    images = []
    for image in rearrange(frames, "f c h w -> f h w c").numpy():
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        images.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return rearrange(torch.from_numpy(np.stack(images)), "f h w c -> f c h w").contiguous()
