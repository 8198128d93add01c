"""The published system's use of InsightFace's 106 landmarks: the three control points and the face selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentsync.face.detection.detector import FloatArray

LEFT_BROW = (43, 48, 49, 51, 50)
RIGHT_BROW = (101, 102, 103, 104, 105)
NOSE = (74, 77, 83, 86)

_OUTLINE = (
    1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17,
    43, 48, 49, 51, 50, 102, 103, 104, 105, 101, 73, 74, 86,
)  # fmt: skip
_BRIDGE = (73, 74)
_MIN_WIDTH, _MIN_HEIGHT = 50, 80
_MIN_ASPECT, _MAX_ASPECT = 0.2, 1.5
MIN_SCORE = 0.5


@dataclass(frozen=True)
class RawFace:
    """A face as returned by InsightFace: box (4,) x0 y0 x1 y1 in pixels, score, landmarks (106, 2) in pixels."""

    box: npt.NDArray[np.float32]
    score: float
    landmarks: npt.NDArray[np.float32]


def control_points(landmarks: npt.ArrayLike, rounded: bool = False) -> FloatArray:
    """(106, 2) landmarks -> (3, 2) float32 left brow, right brow, nose.

    rounded: round to whole pixels (half to even) as the published system does, which makes the crop jitter.
    """
    points = np.asarray(landmarks, np.float64)
    means = np.stack([points[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])
    return (np.rint(means) if rounded else means).astype(np.float32)


def passes_filters(face: RawFace) -> bool:
    """Whether the face passes the published filters on size, aspect ratio and score."""
    x0, y0, x1, y1 = (int(value) for value in face.box)
    width, height = x1 - x0, y1 - y0
    if width < _MIN_WIDTH or height < _MIN_HEIGHT or face.score < MIN_SCORE:
        return False
    return _MIN_ASPECT <= width / height <= _MAX_ASPECT


def widened_box(face: RawFace, width: int, height: int) -> tuple[int, int, int, int]:
    """The published face box in a width x height image: bounding box of the landmarks, widened and clipped."""
    points = np.rint(face.landmarks).astype(np.int64)
    outline = points[list(_OUTLINE)]
    middle = points[list(_BRIDGE)].mean(axis=0)
    low, high = outline.min(axis=0), outline.max(axis=0)
    left, right, bottom = int(low[0]), int(high[0]), int(high[1])
    top = int(middle[1] - (high[1] - middle[1]))
    if left < 0 or right <= left or bottom <= top:
        left, top, right, bottom = (int(value) for value in face.box)
    bottom += int(0.1 * (right - left))
    left -= int(0.05 * (right - left))
    right += int(0.05 * (right - left))
    return max(0, left), max(0, top), min(width, right), min(height, bottom)


def select_published_face(faces: Sequence[RawFace]) -> RawFace | None:
    """Select the face as the published system does: the largest that passes its filters, the first of equal ones."""
    kept = [face for face in faces if passes_filters(face)]

    def area(face: RawFace) -> int:
        x0, y0, x1, y1 = (int(value) for value in face.box)
        return (x1 - x0) * (y1 - y0)

    return max(kept, key=area, default=None)
