"""Rectangles round faces: only these parts of the pictures travel to a device and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from latentsync.runtime.transfer import host_buffer, to_device

IntArray = npt.NDArray[np.int64]

_MAX_BATCH_PIXELS = 2_000_000
_MAX_BATCH_PIXELS_CPU = 240_000


def max_batch_pixels(device: torch.device) -> int:
    """How many pixels of a batch are best computed together.

    Bounds the working memory to a few hundred megabytes; a CPU is quickest with what stays in its caches.
    """
    return _MAX_BATCH_PIXELS_CPU if device.type == "cpu" else _MAX_BATCH_PIXELS


@dataclass(frozen=True)
class Boxes:
    """One rectangle in each of several pictures of one size, inside the picture.

    Attributes:
        corners: (f, 2) left and top, in pixels.
        sizes: (f, 2) width and height, at least 1.
        frame_size: (width, height) of the pictures.
    """

    corners: IntArray
    sizes: IntArray
    frame_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, part: slice) -> Boxes:
        return Boxes(self.corners[part], self.sizes[part], self.frame_size)

    def slices(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of one rectangle in its picture."""
        (left, top), (width, height) = self.corners[index].tolist(), self.sizes[index].tolist()
        return slice(top, top + height), slice(left, left + width)

    def union(self, other: Boxes) -> Boxes:
        """The smallest rectangles that hold these and others of the same pictures."""
        low = np.minimum(self.corners, other.corners)
        high = np.maximum(self.corners + self.sizes, other.corners + other.sizes)
        return Boxes(low, high - low, self.frame_size)


def bounding_boxes(
    outlines: npt.NDArray[np.float32], frame_size: tuple[int, int], margin: int, min_side: int = 1
) -> Boxes:
    """Smallest rectangles round outlines, as far as they lie in the picture.

    Args:
        outlines: (f, k, 2) points (x, y) in pixels; where all lie outside, a strip of the nearest rim is taken.
        frame_size: (width, height) of the pictures.
        margin: pixels added on every side.
        min_side: smallest width and height, unless the picture is smaller.
    """
    limit = np.array(frame_size)
    low = np.clip(np.floor(outlines.min(axis=1)) - margin, 0, limit - 1)
    high = np.clip(np.ceil(outlines.max(axis=1)) + margin + 1, low + 1, limit)
    sizes = np.minimum(np.maximum(high - low, min_side), limit).astype(np.int64)
    return Boxes(np.minimum(low.astype(np.int64), limit - sizes), sizes, frame_size)


class Patches:
    """The pixels of boxes, laid end to end on a device, so that they take no more room than the boxes have pixels.

    Args:
        pixels: (p, 3) uint8, row by row, one box after the other.
        boxes: where they come from.
        first: where the first box's pixels begin.
    """

    def __init__(self, pixels: Tensor, boxes: Boxes, first: int = 0) -> None:
        self.pixels, self.boxes = pixels, boxes
        areas = boxes.sizes.prod(axis=1)
        self.starts: IntArray = first + np.cumsum(areas) - areas

    def __getitem__(self, part: slice) -> Patches:
        return Patches(self.pixels, self.boxes[part], int(self.starts[part][0]))

    @classmethod
    def empty(cls, boxes: Boxes, device: torch.device) -> Patches:
        """Uninitialised pixels for these boxes on a device."""
        count = int(boxes.sizes.prod(axis=1).sum())
        return cls(torch.empty(count, 3, dtype=torch.uint8, device=device), boxes)

    @classmethod
    def upload(cls, images: Sequence[npt.NDArray[np.uint8]], boxes: Boxes, device: torch.device) -> Patches:
        """Copy the boxes out of pictures (H, W, 3) uint8 in one piece, without waiting for the device."""
        count = int(boxes.sizes.prod(axis=1).sum())
        on_host = cls(host_buffer((count, 3), torch.uint8, device), boxes)
        for index, image in enumerate(images):
            on_host.image(index).numpy()[...] = image[boxes.slices(index)]
        return cls(to_device(on_host.pixels, device), boxes)

    @classmethod
    def from_frames(cls, frames: Tensor) -> Patches:
        """All of the frames (f, 3, H, W) uint8; no copy is made of those whose colours lie side by side."""
        count, _, height, width = frames.shape
        sizes = np.tile(np.array([[width, height]], np.int64), (count, 1))
        pixels = rearrange(frames, "f c h w -> (f h w) c")
        return cls(pixels, Boxes(np.zeros_like(sizes), sizes, (width, height)))

    def image(self, index: int) -> Tensor:
        """View (h, w, 3) of one box's pixels."""
        width, height = self.boxes.sizes[index].tolist()
        start = int(self.starts[index])
        return self.pixels[start : start + width * height].view(height, width, 3)

    def crop(self, index: int, inner: Boxes, inner_index: int) -> Tensor:
        """View (h, w, 3) of a smaller box that lies in box `index` of the same picture."""
        rows, columns = inner.slices(inner_index)
        left, top = self.boxes.corners[index].tolist()
        return self.image(index)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
