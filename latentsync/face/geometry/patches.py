"""Bounding boxes around faces: only these parts of the frames are transferred to and from a device."""

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
    """Largest number of pixels to process in one batch.

    Bounds the working memory to a few hundred megabytes on a GPU and keeps the working set in cache on a CPU.
    """
    return _MAX_BATCH_PIXELS_CPU if device.type == "cpu" else _MAX_BATCH_PIXELS


@dataclass(frozen=True)
class Boxes:
    """One rectangle per frame, inside frames of equal size.

    Attributes:
        corners: (f, 2) left and top, in pixels.
        sizes: (f, 2) width and height, at least 1.
        frame_size: (width, height) of the frames.
    """

    corners: IntArray
    sizes: IntArray
    frame_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, part: slice) -> Boxes:
        return Boxes(self.corners[part], self.sizes[part], self.frame_size)

    def slices(self, index: int) -> tuple[slice, slice]:
        """Row and column slices of one rectangle in its frame."""
        (left, top), (width, height) = self.corners[index].tolist(), self.sizes[index].tolist()
        return slice(top, top + height), slice(left, left + width)

    def union(self, other: Boxes) -> Boxes:
        """The smallest rectangles that contain both these and the `other` boxes of the same frames."""
        low = np.minimum(self.corners, other.corners)
        high = np.maximum(self.corners + self.sizes, other.corners + other.sizes)
        return Boxes(low, high - low, self.frame_size)


def bounding_boxes(
    outlines: npt.NDArray[np.float32], frame_size: tuple[int, int], margin: int, min_side: int = 1
) -> Boxes:
    """Bounding boxes of outlines, clipped to the frame.

    Args:
        outlines: (f, k, 2) points (x, y) in pixels; if all are outside the frame, the box is a strip at the nearest
            edge.
        frame_size: (width, height) of the frames.
        margin: pixels added on every side.
        min_side: smallest width and height, unless the frame is smaller.
    """
    limit = np.array(frame_size)
    low = np.clip(np.floor(outlines.min(axis=1)) - margin, 0, limit - 1)
    high = np.clip(np.ceil(outlines.max(axis=1)) + margin + 1, low + 1, limit)
    sizes = np.minimum(np.maximum(high - low, min_side), limit).astype(np.int64)
    return Boxes(np.minimum(low.astype(np.int64), limit - sizes), sizes, frame_size)


class Patches:
    """The pixels of boxes, packed end to end on a device without padding.

    Args:
        pixels: (p, 3) uint8, row by row, one box after the other.
        boxes: position of each patch in its frame.
        first: offset of the first box in `pixels`.
    """

    def __init__(self, pixels: Tensor, boxes: Boxes, first: int = 0) -> None:
        self.pixels, self.boxes = pixels, boxes
        areas = boxes.sizes.prod(axis=1)
        self.starts: IntArray = first + np.cumsum(areas) - areas

    def __getitem__(self, part: slice) -> Patches:
        return Patches(self.pixels, self.boxes[part], int(self.starts[part][0]))

    @classmethod
    def empty(cls, boxes: Boxes, device: torch.device) -> Patches:
        """Allocate uninitialized patches for these boxes on a device."""
        count = int(boxes.sizes.prod(axis=1).sum())
        return cls(torch.empty(count, 3, dtype=torch.uint8, device=device), boxes)

    @classmethod
    def upload(cls, images: Sequence[npt.NDArray[np.uint8]], boxes: Boxes, device: torch.device) -> Patches:
        """Copy the boxes of frames (H, W, 3) uint8 to a device in one asynchronous transfer."""
        count = int(boxes.sizes.prod(axis=1).sum())
        on_host = cls(host_buffer((count, 3), torch.uint8, device), boxes)
        for index, image in enumerate(images):
            on_host.image(index).numpy()[...] = image[boxes.slices(index)]
        return cls(to_device(on_host.pixels, device), boxes)

    @classmethod
    def from_frames(cls, frames: Tensor) -> Patches:
        """Full frames (f, 3, H, W) uint8 as patches; without a copy if they are stored channels-last."""
        count, _, height, width = frames.shape
        sizes = np.tile(np.array([[width, height]], np.int64), (count, 1))
        pixels = rearrange(frames, "f c h w -> (f h w) c")
        return cls(pixels, Boxes(np.zeros_like(sizes), sizes, (width, height)))

    def image(self, index: int) -> Tensor:
        """View (h, w, 3) of the pixels of one box."""
        width, height = self.boxes.sizes[index].tolist()
        start = int(self.starts[index])
        return self.pixels[start : start + width * height].view(height, width, 3)

    def crop(self, index: int, inner: Boxes, inner_index: int) -> Tensor:
        """View (h, w, 3) of box `inner_index` of `inner`, which lies inside box `index` of the same frame."""
        rows, columns = inner.slices(inner_index)
        left, top = self.boxes.corners[index].tolist()
        return self.image(index)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
