"""Frames as they go to the writer, whose new faces may still be on their way from the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentsync.face.geometry.patches import Patches
from latentsync.runtime.transfer import AsyncHostCopy


class RegionDownload:
    """The repainted regions of several frames, on their way to the host together.

    Args:
        patches: the regions, on the device.
    """

    def __init__(self, patches: Patches) -> None:
        self._boxes, self._starts = patches.boxes, patches.starts
        self._download = AsyncHostCopy(patches.pixels)

    def paste(self, index: int, image: NDArray[np.uint8]) -> None:
        """Write region `index` into a picture (H, W, 3) uint8; waits until it has arrived."""
        width, height = self._boxes.sizes[index].tolist()
        start = int(self._starts[index])
        pixels = self._download.wait()[start : start + width * height]
        image[self._boxes.slices(index)] = pixels.reshape(height, width, 3)


@dataclass(frozen=True)
class OutputFrame:
    """An output frame, queued for writing.

    Attributes:
        index: output frame.
        source: (H, W, 3) uint8 RGB as it came; stays as it is.
        reason: anything odd about the frame.
        face_region: where its repainted region is found; None where nothing was generated.
    """

    index: int
    source: NDArray[np.uint8]
    reason: str | None
    face_region: tuple[RegionDownload, int] | None = None

    @property
    def generated(self) -> bool:
        """Whether the frame carries a new mouth."""
        return self.face_region is not None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as it goes out: the source itself where nothing was generated, else a fresh copy.

        Waits for the device, so it is for the writer's thread to ask for, once.
        """
        if self.face_region is None:
            return self.source
        faces, index = self.face_region
        image = self.source.copy()
        faces.paste(index, image)
        return image
