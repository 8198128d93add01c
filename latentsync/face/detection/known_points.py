"""A detector for videos whose face positions are known in every frame, such as rendered ones: no model, no search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError
from latentsync.face.detection.detector import FaceDetection, Frame, check_frame
from latentsync.face.geometry.affine import apply_affine, crop_size, face_template, fit_affine, invert_affine

_RESOLUTION = 256  # arbitrary: only the unit of the intermediate crop coordinates


class KnownPointsDetector:
    """Returns precomputed control points for the frames, in order.

    Args:
        control_points: (t, 3, 2) left brow, right brow, nose of every frame of the video, (x, y) in its pixels.

    Raises:
        ConfigError: control_points has another shape.
    """

    def __init__(self, control_points: npt.ArrayLike) -> None:
        self._points = np.asarray(control_points, np.float32)
        if self._points.ndim != 3 or self._points.shape[1:] != (3, 2):
            raise ConfigError(f"Got control points {self._points.shape}; expected (t, 3, 2): three points per frame")
        self._next = 0

    def search(self, frame: Frame) -> None:
        """Return None: there is nothing to search."""

    def detect(self, frame: Frame, candidates: None = None) -> list[FaceDetection]:
        """Return the single face of the next frame (H, W, 3) uint8.

        Raises:
            ConfigError: the video has more frames than there are control points.
        """
        check_frame(frame)
        if self._next >= len(self._points):
            raise ConfigError(
                f"Control points were given for {len(self._points)} frames, but the video has more; give them for all"
            )
        points = self._points[self._next]
        self._next += 1
        return [FaceDetection(_crop_outline(points), 1.0, points)]

    def close(self) -> None:
        """Do nothing: there are no models to free."""


def _crop_outline(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(4,) x0 y0 x1 y1: bounding box of the aligned crop, forehead to chin."""
    width, height = crop_size(_RESOLUTION)
    matrix = fit_affine(points[None], face_template(_RESOLUTION))[0]
    corners = apply_affine(invert_affine(matrix), [[0, 0], [width, 0], [0, height], [width, height]])
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])
