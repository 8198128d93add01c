"""The face detection result and the protocol that every detector backend implements.

Coordinates are (x, y) in frame pixels, with pixel centers at integers. "Left" and "right" are from the viewer's side.
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
        score: detection confidence, 0 to 1.
        control_points: (3, 2) float32 left brow, right brow, nose: the points that the published crop is fitted to.
        yaw: how far the head is turned sideways, 0 = frontal, about 1 = full profile; None if unknown.
    """

    box: FloatArray
    score: float
    control_points: FloatArray
    yaw: float | None = None

    @property
    def center(self) -> FloatArray:
        """(2,) center of the box."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels."""
        width, height = np.maximum(self.box[2:] - self.box[:2], 0)
        return float(np.sqrt(width * height))


class FaceDetector(Protocol):
    """Detects faces frame by frame. Frames of a video come in order, so a backend may use the previous faces."""

    def search(self, frame: Frame) -> Any:
        """Compute the part of `detect` that does not depend on earlier frames; None if there is none.

        May be called ahead of `detect`, from another thread.
        """
        ...

    def detect(self, frame: Frame, candidates: Any = None) -> list[FaceDetection]:
        """Detect the faces of a frame, highest score first; empty if there is none.

        Args:
            frame: (H, W, 3) uint8 RGB.
            candidates: the result of `search` for this frame; None runs the search here.
        """
        ...

    def close(self) -> None:
        """Free the models. The detector cannot be used afterwards."""
        ...


def box_overlap(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, 0 to 1."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    intersection = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(np.maximum(a[2:] - a[:2], 0)) + np.prod(np.maximum(b[2:] - b[:2], 0)) - intersection
    return float(intersection / union) if union > 0 else 0.0


def check_frame(frame: Frame) -> None:
    """Raise ConfigError unless `frame` is (H, W, 3) uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            f"Cannot detect faces in an array {frame.shape} of {frame.dtype}: expected an RGB image (H, W, 3) of uint8."
        )
