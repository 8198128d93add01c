"""Cut the aligned face out of frames: similarity warp, then the stretch to a square; batched, on any device.

Runs in float32 throughout: in half precision the sampling grid alone is up to a pixel off in a 1080p picture.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.affine import crop_size
from latentsync.face.resample import lanczos4_resize

FILL = 127  # grey level outside the picture


def invert_matrices(matrices: Tensor) -> Tensor:
    """(..., 2, 3) float32 affine matrices -> their inverses, on the same device, in closed form (no host sync)."""
    values = matrices.double()
    a, b, c, d = values[..., 0, 0], values[..., 0, 1], values[..., 1, 0], values[..., 1, 1]
    determinant = a * d - b * c
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / determinant[..., None, None]
    shift = -(rows @ values[..., 2:])
    return torch.cat([rows, shift], -1).to(matrices.dtype)


def sampling_points(matrices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where every output pixel looks: matrices (f, 2, 3) output -> input; x and y, each (f, h, w), in input pixels."""
    x = torch.arange(width, device=matrices.device, dtype=matrices.dtype)
    y = torch.arange(height, device=matrices.device, dtype=matrices.dtype)[:, None]
    m = matrices[..., None, None]
    return m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2], m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]


def _gather(frames: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Frames (f, c, H, W) at whole-number places x, y (f, h, w) int64 -> (f, c, h, w) float32; FILL off the picture."""
    height, width = frames.shape[-2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = rearrange(y.clamp(0, height - 1) * width + x.clamp(0, width - 1), "f h w -> f 1 (h w)")
    picked = frames.flatten(2).gather(2, index.expand(-1, frames.shape[1], -1)).float()
    return torch.where(inside[:, None], rearrange(picked, "f c (h w) -> f c h w", h=x.shape[1]), float(FILL))


def sample_bilinear(frames: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Frames (f, c, H, W) of any dtype at the places x, y (f, h, w) float -> (f, c, h, w) float32, FILL outside.

    Reads only the four neighbours of each place: a 4K frame is never turned into floats as a whole.
    """
    left, top = x.floor(), y.floor()
    right_share, low_share = (x - left)[:, None].float(), (y - top)[:, None].float()
    left, top = left.long(), top.long()
    upper = torch.lerp(_gather(frames, left, top), _gather(frames, left + 1, top), right_share)
    lower = torch.lerp(_gather(frames, left, top + 1), _gather(frames, left + 1, top + 1), right_share)
    return torch.lerp(upper, lower, low_share)


def warp_crops(frames: Tensor, matrices: Tensor, resolution: int) -> Tensor:
    """(f, 3, H, W) uint8 and (f, 2, 3) image -> crop: the crops (f, 3, h, w) uint8, 3:4, grey 127 off the picture."""
    if frames.dtype != torch.uint8 or len(frames) != len(matrices):
        raise ConfigError(
            f"Cannot warp faces: got frames {tuple(frames.shape)} {frames.dtype} and {len(matrices)} matrices; "
            "expected uint8 (f, 3, H, W) and one (2, 3) matrix per frame."
        )
    width, height = crop_size(resolution)
    x, y = sampling_points(invert_matrices(matrices.float()), height, width)
    return sample_bilinear(frames, x, y).clamp_(0, 255).to(torch.uint8)


def warp_faces(frames: Tensor, matrices: Tensor, resolution: int) -> Tensor:
    """Aligned faces of a window, as the published models expect them.

    frames: (f, 3, H, W) uint8; matrices: (f, 2, 3) float32 image -> crop, on the same device.
    Returns (f, 3, R, R) uint8 on that device: bilinear crop (truncated to uint8) stretched to a square by Lanczos-4.
    Raises ConfigError when the frames are not uint8 or their number is not that of the matrices.
    """
    return lanczos4_resize(warp_crops(frames, matrices, resolution), resolution, resolution)
