"""The four fixed masks of the published models, redrawn from control points, and the masked pixels the model sees.

In every mask 1 = keep the pixel, 0 = repaint it: the opposite of the usual inpainting convention, and the convention
of the U-Net's mask channel too.
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
    """What is repainted on a 256 x 256 picture: the jaw, inclusive rectangles (x0, y0, x1, y1), a half disc."""

    jaw: bool = False
    rectangles: tuple[tuple[int, int, int, int], ...] = ()
    half_disc: tuple[float, float, float, int] | None = None  # centre x, centre y, radius, first row


_FIXED: dict[str, _Shape] = {
    "mask": _Shape(jaw=True, rectangles=((9, 95, 77, 127), (178, 95, 246, 127))),
    "mask2": _Shape(jaw=True),
    "mask3": _Shape(half_disc=(128, 128, 89.5, 128)),
    "mask4": _Shape(jaw=True, rectangles=((9, 60, 246, 127),)),
}
MASK_NAMES = tuple(_FIXED)


def draw_mask(name: str) -> npt.NDArray[np.uint8]:
    """A fixed mask as a (256, 256) uint8 picture of 255 (keep) and 0 (repaint). Raises ConfigError for other names."""
    if name not in _FIXED:
        raise ConfigError(f"No mask is called '{name}': choose one of {', '.join(MASK_NAMES)}, or give a PNG file.")
    shape = _FIXED[name]
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
    """A mask picture from a file, any path (OpenCV's own reader fails on non-ASCII names on some systems)."""
    if not path.is_file():
        raise ConfigError(
            f"No mask '{path}': it is neither a file nor one of the fixed masks ({', '.join(MASK_NAMES)})."
        )
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ConfigError(f"Cannot read the mask '{path}' as a picture: give a PNG, white = keep, black = repaint.")
    return np.asarray(image, np.uint8)


def resize_mask(image: npt.NDArray[np.uint8], resolution: int) -> Tensor:
    """(h, w) uint8 mask picture -> (3, R, R) float32 in [0, 1], 1 = keep; Lanczos-4 on uint8, equal channels."""
    resized = lanczos4_resize(torch.from_numpy(image), resolution, resolution)
    return repeat(resized.float() / 255, "h w -> c h w", c=3).contiguous()


def load_mask(name_or_path: str | Path, resolution: int) -> Tensor:
    """A fixed mask by name, or a picture file of your own, as (3, R, R) float32 on the CPU; 1 = keep, 0 = repaint.

    Raises ConfigError for an unknown name, a missing file or a file that is no picture. A public configuration's
    path to one of the fixed masks (``.../mask.png``) finds the drawn one when no such file exists.
    """
    path = Path(name_or_path)
    if str(name_or_path) in _FIXED:
        return resize_mask(draw_mask(str(name_or_path)), resolution)
    if not path.exists() and path.suffix == ".png" and path.stem in _FIXED:
        return resize_mask(draw_mask(path.stem), resolution)
    return resize_mask(_read_image(path), resolution)


def latent_mask(mask: Tensor) -> Tensor:
    """(..., R, R) mask -> (..., R/8, R/8): nearest, so row and column 8k of the picture. R must divide by 8."""
    if mask.shape[-1] % _LATENT_STEP or mask.shape[-2] % _LATENT_STEP:
        raise ConfigError(f"A mask of {mask.shape[-2]}x{mask.shape[-1]} has no latent grid: sides must divide by 8.")
    return mask[..., ::_LATENT_STEP, ::_LATENT_STEP]


def prepare_pixels(frames: Tensor, resolution: int) -> Tensor:
    """(f, 3, h, w) uint8 -> (f, 3, R, R) float32 in [-1, 1]; another size is resized bicubic, antialiased, on uint8."""
    pixels = frames
    if frames.shape[-2:] != (resolution, resolution):
        pixels = F.interpolate(frames.float(), (resolution, resolution), mode="bicubic", antialias=True)
        pixels = pixels.round_().clamp_(0, 255)
    return (pixels.float() / 255 - 0.5) / 0.5


def prepare_masked_pixels(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels a model sees of a window of faces.

    frames: (f, 3, h, w) uint8; mask: (3, R, R) float32, 1 = keep, on the same device.
    Returns pixels (f, 3, R, R) in [-1, 1], the same with the repainted region at 0 (mid grey), masks (f, 1, R, R).
    """
    pixels = prepare_pixels(frames, mask.shape[-1])
    masks = repeat(mask[:1], "c h w -> f c h w", f=len(frames))
    return pixels, pixels * mask, masks
