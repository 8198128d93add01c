"""Extract aligned faces from frames: similarity warp, then a stretch to a square; batched, on any device.

Runs in float32 throughout: in half precision the sampling grid alone is up to a pixel off in a 1080p frame.
Coordinates are computed in full-frame pixels even where only a patch of each frame is on the device, so that the crops
are bit-identical.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.geometry.affine import apply_affine, crop_size, invert_affine
from latentsync.face.geometry.patches import Boxes, Patches, bounding_boxes, max_batch_pixels
from latentsync.face.geometry.resample import lanczos4_resize
from latentsync.runtime.transfer import to_device

FILL = 127  # gray level outside the frame

_MARGIN = 2  # pixels around the crop for the right and lower neighbors of bilinear sampling, and for rounding


def invert_matrices(matrices: Tensor) -> Tensor:
    """Invert (..., 2, 3) float32 affine matrices on their device, in closed form (no host sync)."""
    values = matrices.double()
    a, b, c, d = values[..., 0, 0], values[..., 0, 1], values[..., 1, 0], values[..., 1, 1]
    determinant = a * d - b * c
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / determinant[..., None, None]
    shift = -(rows @ values[..., 2:])
    return torch.cat([rows, shift], -1).to(matrices.dtype)


def sampling_points(matrices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Input position of every output pixel: matrices (f, 2, 3) output -> input; returns x and y, (f, h, w) each."""
    x = torch.arange(width, device=matrices.device, dtype=matrices.dtype)
    y = torch.arange(height, device=matrices.device, dtype=matrices.dtype)[:, None]
    m = matrices[..., None, None]
    return m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2], m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]


class _Axis:
    """Integer positions along x or y: whether each is inside the frame, and its clamped coordinate inside the box.

    Args:
        coords: (f, h, w) int64 in frame pixels.
        first: (f, 1, 1) int64, first pixel of the boxes.
        count: (f, 1, 1) int64, length of the boxes in pixels.
        limit: size of the frame along this axis.
    """

    def __init__(self, coords: Tensor, first: Tensor, count: Tensor, limit: int) -> None:
        self.inside = (coords >= 0) & (coords < limit)
        self.local = torch.minimum((coords - first).clamp_(min=0), count - 1)


def sample_bilinear(patches: Patches, x: Tensor, y: Tensor) -> Tensor:
    """Sample frames at x, y (f, h, w) float, in frame pixels -> (3, f, h, w) float32; FILL outside the frame.

    The four neighbors of each position that are inside the frame must lie in the patches' boxes.
    """
    boxes = patches.boxes
    rows = np.stack([patches.starts, *boxes.corners.T, *boxes.sizes.T])
    start, first_x, first_y, width, height = to_device(rows, x.device)[..., None, None]
    channels = patches.pixels.T

    def axes(coords: Tensor, first: Tensor, count: Tensor, limit: int) -> tuple[_Axis, _Axis]:
        low = coords.long()
        return _Axis(low, first, count, limit), _Axis(low + 1, first, count, limit)

    def pick(column: _Axis, row: _Axis) -> Tensor:
        index = (row.local * width + column.local + start).flatten()
        picked = channels.gather(1, index.expand(3, -1)).unflatten(1, x.shape)
        return torch.where(column.inside & row.inside, picked, FILL).float()

    left_x, top_y = x.floor(), y.floor()
    weight_x, weight_y = (x - left_x).float(), (y - top_y).float()
    left, right = axes(left_x, first_x, width, boxes.frame_size[0])
    top, low = axes(top_y, first_y, height, boxes.frame_size[1])
    upper = torch.lerp(pick(left, top), pick(right, top), weight_x)
    lower = torch.lerp(pick(left, low), pick(right, low), weight_x)
    return torch.lerp(upper, lower, weight_y)


def crop_boxes(matrices: npt.NDArray[np.float32], resolution: int, frame_size: tuple[int, int]) -> Boxes:
    """Boxes of (width, height) frames that contain every pixel sampled by the crops (f, 2, 3) image -> crop."""
    width, height = crop_size(resolution)
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    return bounding_boxes(apply_affine(invert_affine(matrices), corners), frame_size, _MARGIN)


def warp_crops(frames: Tensor, matrices: Tensor, resolution: int) -> Tensor:
    """Warp frames (f, 3, H, W) uint8 by (f, 2, 3) image -> crop into crops (f, 3, h, w) uint8, 3:4.

    Gray 127 outside the frame. Raises ConfigError as `warp_faces` does.
    """
    if frames.dtype != torch.uint8 or len(frames) != len(matrices):
        raise ConfigError(
            f"Cannot warp faces: got frames {tuple(frames.shape)} {frames.dtype} and {len(matrices)} matrices; "
            "expected uint8 (f, 3, H, W) and one (2, 3) matrix per frame."
        )
    return _crops(Patches.from_frames(frames), invert_matrices(matrices.float()), resolution)


def _crops(patches: Patches, inverses: Tensor, resolution: int) -> Tensor:
    """(f, 2, 3) crop -> image, on the patches' device -> crops (f, 3, h, w) uint8."""
    width, height = crop_size(resolution)
    values = sample_bilinear(patches, *sampling_points(inverses, height, width))
    return rearrange(values.clamp_(0, 255).to(torch.uint8), "c f h w -> f c h w")


def warp_patches(patches: Patches, matrices: npt.NDArray[np.float32], resolution: int) -> Tensor:
    """Same result as `warp_faces`, from patches that cover the boxes of `crop_boxes`, without a device sync.

    patches: of f frames, on any device; matrices: (f, 2, 3) image -> crop, on the host.
    Returns (f, 3, R, R) uint8 on the patches' device.
    """
    device = patches.pixels.device
    inverses = to_device(invert_matrices(torch.from_numpy(matrices)), device)
    width, height = crop_size(resolution)
    step = max(1, max_batch_pixels(device) // (width * height))
    parts = [slice(start, start + step) for start in range(0, len(matrices), step)]
    faces = [
        lanczos4_resize(_crops(patches[part], inverses[part], resolution), resolution, resolution) for part in parts
    ]
    return torch.cat(faces) if len(faces) > 1 else faces[0]


def warp_faces(frames: Tensor, matrices: Tensor, resolution: int) -> Tensor:
    """Extract the aligned faces of a window, as the published models expect them.

    frames: (f, 3, H, W) uint8; matrices: (f, 2, 3) float32 image -> crop, on the same device.
    Returns (f, 3, R, R) uint8 on that device: bilinear crop (truncated to uint8) stretched to a square by Lanczos-4.
    Raises ConfigError if the frames are not uint8 or there is not one matrix per frame.
    """
    return lanczos4_resize(warp_crops(frames, matrices, resolution), resolution, resolution)
