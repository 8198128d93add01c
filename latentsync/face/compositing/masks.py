"""The four fixed masks of the published models, redrawn from control points, and the masked pixels for the U-Net.

In every mask 1 = keep the pixel, 0 = repaint it. This is the opposite of the usual inpainting convention; the U-Net's
mask channel uses it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.geometry.resample import lanczos4_resize

_SIZE = 256
_LATENT_STEP = 8
_JAW = (
    (9, 128), (247, 128), (244, 169), (240, 177), (223, 201), (210, 214), (191, 227), (164, 239),
    (152, 242), (108, 241), (87, 235), (60, 222), (40, 208), (26, 193), (12, 170),
)  # fmt: skip


@dataclass(frozen=True)
class _Shape:
    """Repainted region of a 256 x 256 mask: the jaw, inclusive rectangles (x0, y0, x1, y1), a half disc."""

    jaw: bool = False
    rectangles: tuple[tuple[int, int, int, int], ...] = ()
    half_disc: tuple[float, float, float, int] | None = None  # center x, center y, radius, first row


_FIXED_MASKS: dict[str, _Shape] = {
    "mask": _Shape(jaw=True, rectangles=((9, 95, 77, 127), (178, 95, 246, 127))),
    "mask2": _Shape(jaw=True),
    "mask3": _Shape(half_disc=(128, 128, 89.5, 128)),
    "mask4": _Shape(jaw=True, rectangles=((9, 60, 246, 127),)),
}
MASK_NAMES = tuple(_FIXED_MASKS)


def draw_mask(name: str) -> npt.NDArray[np.uint8]:
    """Draw a fixed mask: (256, 256) uint8, 255 = keep, 0 = repaint. Raises ConfigError for an unknown name."""
    if name not in _FIXED_MASKS:
        raise ConfigError(f"Unknown mask '{name}': choose one of {', '.join(MASK_NAMES)}, or give a PNG file.")
    shape = _FIXED_MASKS[name]
    image = np.full((_SIZE, _SIZE), 255, np.uint8)
    if shape.jaw:
        cv2.fillPoly(image, [np.asarray(_JAW, np.int32)], (0,))
    for x0, y0, x1, y1 in shape.rectangles:
        image[y0 : y1 + 1, x0 : x1 + 1] = 0
    if shape.half_disc is not None:
        center_x, center_y, radius, first_row = shape.half_disc
        y, x = np.mgrid[:_SIZE, :_SIZE]
        image[((x - center_x) ** 2 + (y - center_y) ** 2 <= radius**2) & (y >= first_row)] = 0
    return image


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a grayscale mask image from any path (``cv2.imread`` fails on non-ASCII names on some systems)."""
    if not path.is_file():
        raise ConfigError(
            f"Mask '{path}' not found: it is neither a file nor one of the fixed masks ({', '.join(MASK_NAMES)})."
        )
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ConfigError(f"Cannot read the mask '{path}' as an image: give a PNG, white = keep, black = repaint.")
    return np.asarray(image, np.uint8)


def resize_mask(image: npt.NDArray[np.uint8], resolution: int) -> Tensor:
    """(h, w) uint8 mask image -> (3, R, R) float32 in [0, 1], 1 = keep; Lanczos-4 on uint8, equal channels."""
    resized = lanczos4_resize(torch.from_numpy(image), resolution, resolution)
    return repeat(resized.float() / 255, "h w -> c h w", c=3).contiguous()


def load_mask(name_or_path: str | Path, resolution: int) -> Tensor:
    """Load a fixed mask by name or a custom image file, as (3, R, R) float32 on the CPU; 1 = keep, 0 = repaint.

    If a published configuration's path to a fixed mask (``.../mask.png``) does not exist, the drawn mask of that name
    is used. Raises ConfigError for an unknown name, a missing file or a file that is not an image.
    """
    path = Path(name_or_path)
    if str(name_or_path) in _FIXED_MASKS:
        return resize_mask(draw_mask(str(name_or_path)), resolution)
    if not path.exists() and path.suffix == ".png" and path.stem in _FIXED_MASKS:
        return resize_mask(draw_mask(path.stem), resolution)
    return resize_mask(_read_image(path), resolution)


def latent_mask(mask: Tensor) -> Tensor:
    """(..., R, R) mask -> (..., R/8, R/8) by nearest neighbor: rows and columns 8k. R must be divisible by 8.

    Raises ConfigError for other sizes.
    """
    if mask.shape[-1] % _LATENT_STEP or mask.shape[-2] % _LATENT_STEP:
        raise ConfigError(
            f"A mask of {mask.shape[-2]}x{mask.shape[-1]} has no latent grid: both sides must be divisible by 8."
        )
    return mask[..., ::_LATENT_STEP, ::_LATENT_STEP]


def prepare_pixels(frames: Tensor, resolution: int) -> Tensor:
    """(f, 3, h, w) uint8 -> (f, 3, R, R) float32 in [-1, 1]; other sizes: antialiased bicubic, rounded to uint8."""
    pixels = frames
    if frames.shape[-2:] != (resolution, resolution):
        pixels = F.interpolate(frames.float(), (resolution, resolution), mode="bicubic", antialias=True)
        pixels = pixels.round_().clamp_(0, 255)
    return (pixels.float() / 255 - 0.5) / 0.5


def prepare_masked_pixels(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Model input for a window of faces.

    frames: (f, 3, h, w) uint8; mask: (3, R, R) float32, 1 = keep, on the same device.
    Returns pixels (f, 3, R, R) in [-1, 1], masked pixels with the repainted region at 0 (mid gray), and masks
    (f, 1, R, R).
    """
    pixels = prepare_pixels(frames, mask.shape[-1])
    masks = repeat(mask[:1], "c h w -> f c h w", f=len(frames))
    return pixels, pixels * mask, masks
