"""What a face detector gives, and the protocol that every back end fulfils.

Coordinates are (x, y) in pixels of the given frame with pixel centres at whole numbers. "Left" and "right" are as the
viewer sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError

FloatArray = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FaceDetection:
    """One face in one frame.

    Attributes:
        box: (4,) float32, x0 y0 x1 y1 from forehead to chin, in pixels.
        score: how sure the detector is, 0 to 1.
        control_points: (3, 2) float32 left brow, right brow, nose: the places that the published crop is fitted to.
        yaw: how far the head is turned sideways, 0 = frontal, about 1 = full profile; None when not known.
    """

    box: FloatArray
    score: float
    control_points: FloatArray
    yaw: float | None = None

    @property
    def center(self) -> FloatArray:
        """(2,) middle of the box."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels."""
        width, height = np.maximum(self.box[2:] - self.box[:2], 0)
        return float(np.sqrt(width * height))


class FaceDetector(Protocol):
    """Finds faces frame by frame; frames of one video come in order, so a back end may look near the last faces."""

    def search(self, frame: Frame) -> Any:
        """What can be told of a frame without those before it, for `detect`; None where that is nothing.

        It may be called ahead, in another thread than `detect`.
        """
        ...

    def detect(self, frame: Frame, candidates: Any = None) -> list[FaceDetection]:
        """Faces of a frame, the surest first; empty when there is none.

        Args:
            frame: (H, W, 3) uint8 RGB.
            candidates: what `search` told of this frame; None has it searched now.
        """
        ...

    def close(self) -> None:
        """Free the models. The detector cannot be used afterwards."""
        ...


def box_overlap(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, 0 to 1."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    whole = np.prod(np.maximum(a[2:] - a[:2], 0)) + np.prod(np.maximum(b[2:] - b[:2], 0)) - shared
    return float(shared / whole) if whole > 0 else 0.0


def check_frame(frame: Frame) -> None:
    """Raise ConfigError unless `frame` is (H, W, 3) uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            f"Cannot look for faces in an array {frame.shape} of {frame.dtype}: give an RGB picture (H, W, 3) of uint8."
        )
