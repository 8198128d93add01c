"""The default face detector: MediaPipe's bundled models. Nothing to download, licence Apache 2.0.

Boxes come from the face detection models; each face is then cut out and given to the face mesh, so that a face that
is small in a large picture gets the same care as a large one. The cut follows the face's last place as long as this
frame's detection agrees with it, which keeps the landmarks steady; a place is never kept without being seen again, so
nothing lags behind and nothing sticks after a scene cut.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from latentsync.errors import DependencyError
from latentsync.face.detection.detector import FaceDetection, FloatArray, Frame, box_overlap, check_frame
from latentsync.face.detection.quiet_stderr import suppress_stderr_lines
from latentsync.runtime.advice import install_command

logger = logging.getLogger(__name__)

# Mesh points at the places of the 106-landmark sets that the published crop is fitted to: the upper edge of each brow
# from its tip inwards (43 48 49 51 50; 101..105), and the nose: lower bridge, tip and both wings (74 86 77 83).
LEFT_BROW = (70, 63, 105, 66, 107)
RIGHT_BROW = (300, 293, 334, 296, 336)
NOSE = (195, 4, 64, 294)
_CHEEKS = (234, 454)  # where the face meets the ears
_TIP = 4

_SEARCH_SIDE = 640  # longer side of the picture that boxes are searched in: the models see 192 pixels at the most
_CROP_SIDE = 320  # side of the square that the mesh is given
_CROP_SCALE = 1.7  # that square over the longer side of the face

# What the bundled models always say on standard error, whatever the log level: nothing of it can be acted upon.
_CHATTER = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|I\d{4} |W\d{4} [^\n]* (inference_feedback_manager|landmark_projection_calculator)\.cc:)[^\n]*\n"
)

_Box = tuple[FloatArray, float]
"""(4,) x0 y0 x1 y1 in pixels of the picture, and the score."""


@dataclass(frozen=True)
class MediapipeOptions:
    """Limits of the search."""

    min_score: float = 0.5
    """Detections below this are dropped."""
    max_faces: int = 8
    """Faces that are looked at closely per frame, the largest first."""
    tile_every: int = 5
    """While nothing is found, the slow search for small faces runs on every n-th frame."""


@dataclass(frozen=True)
class _Square:
    """A square cut of a frame: centre in pixels, side in pixels."""

    x: float
    y: float
    side: float


class MediapipeDetector:
    """Several faces per frame, each with the three control points.

    Args:
        options: limits of the search.

    Raises DependencyError when mediapipe is missing or of a release without bundled models.
    """

    def __init__(self, options: MediapipeOptions | None = None) -> None:
        self.options = options or MediapipeOptions()
        solutions = _solutions()
        score = self.options.min_score
        with suppress_stderr_lines(_CHATTER):
            self._near = solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=score)
            self._far = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=score)
            self._mesh = solutions.face_mesh.FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
            )
            # Graphs start in threads of their own; after a picture they have all said what they say.
            for model in (self._near, self._far, self._mesh):
                model.process(np.zeros((_CROP_SIDE, _CROP_SIDE, 3), np.uint8))
        self._searching = threading.Lock()  # the models of the search have one user at a time
        self._mesh_has_worked = False
        self._last: list[FaceDetection] = []
        self._missed = 0

    def search(self, frame: Frame) -> list[_Box]:
        """Boxes with scores in the whole of a frame (H, W, 3) uint8 RGB. Raises ConfigError for another array."""
        check_frame(frame)
        with self._searching:
            # One model knows distant faces, one close ones.
            return _run_detection(self._far, frame) or _run_detection(self._near, frame)

    def detect(self, frame: Frame, candidates: list[_Box] | None = None) -> list[FaceDetection]:
        """Faces of a frame (H, W, 3) uint8 RGB, the surest first. Raises ConfigError for another kind of array.

        candidates: what `search` told of this frame; None has it searched now.
        """
        check_frame(frame)
        faces = self._from_boxes(frame, self.search(frame) if candidates is None else candidates)
        if not faces:
            faces = self._from_last(frame)
        if not faces:
            if self._missed % self.options.tile_every == 0:
                faces = self._from_boxes(frame, self._search_tiles(frame))
            self._missed += 1
        if faces:
            self._missed = 0
        self._last = faces
        return sorted(faces, key=lambda face: -face.score)

    def close(self) -> None:
        """Free the models."""
        for model in (self._near, self._far, self._mesh):
            model.close()

    def _search_tiles(self, frame: Frame) -> list[_Box]:
        """The same in overlapping parts of the picture, for faces too small to be seen in the whole."""
        candidates: list[_Box] = []
        for left, top, part in _tiles(frame):
            with self._searching:
                boxes = _run_detection(self._far, part)
            for box, score in boxes:
                candidates.append((box + np.array([left, top, left, top], np.float32), score))
        return candidates

    def _from_boxes(self, frame: Frame, boxes: list[_Box]) -> list[FaceDetection]:
        """Look closely at each box, the largest first; a face that two boxes lead to counts once."""
        faces: list[FaceDetection] = []
        largest = sorted(boxes, key=lambda entry: -float(np.prod(entry[0][2:] - entry[0][:2])))
        for box, score in largest[: self.options.max_faces]:
            face = self._detect_in_square(frame, self._square_for(box), score)
            if face is not None and all(box_overlap(face.box, other.box) < 0.5 for other in faces):
                faces.append(face)
        return faces

    def _from_last(self, frame: Frame) -> list[FaceDetection]:
        """Faces that are still where they were, though the search of the whole picture missed them."""
        looks = (self._detect_in_square(frame, _square_of(face.box), self.options.min_score) for face in self._last)
        return [face for face in looks if face is not None]

    def _square_for(self, box: FloatArray) -> _Square:
        """Where to cut for a detected box: round the face's last place when the box confirms it."""
        for face in self._last:
            inside = np.all(np.abs((box[:2] + box[2:]) / 2 - face.center) < 0.25 * face.size)
            if inside and 0.5 < float(np.sqrt(np.prod(box[2:] - box[:2]))) / face.size < 1.2:
                return _square_of(face.box)
        center, side = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2]))
        # The models' boxes span brows to chin, so the face's middle is higher and the face larger.
        return _Square(float(center[0]), float(center[1]) - 0.1 * side, side * 1.3 * _CROP_SCALE)

    def _detect_in_square(self, frame: Frame, square: _Square, score: float) -> FaceDetection | None:
        """The face in a square of the frame, None when the mesh finds none there."""
        part, scale, left, top = _crop_square(frame, square)
        result = self._landmarks(part)
        if not result:
            return None
        points = np.array([(point.x, point.y) for point in result[0].landmark]) * _CROP_SIDE
        return _as_detection((points / scale + (left, top) - 0.5).astype(np.float32), score)

    def _landmarks(self, part: Frame) -> Any:
        """The mesh's answer; up to its first face it has one more thing to say."""
        if self._mesh_has_worked:
            return self._mesh.process(part).multi_face_landmarks
        with suppress_stderr_lines(_CHATTER):
            result = self._mesh.process(part).multi_face_landmarks
        self._mesh_has_worked = bool(result)
        return result


def _as_detection(points: FloatArray, score: float) -> FaceDetection | None:
    """(478, 2) mesh points in pixels -> a detection; None for a degenerate mesh."""
    control = np.stack([points[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])
    if np.linalg.norm(control[1] - control[0]) < 2:
        return None
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    axis = points[_CHEEKS[1]] - points[_CHEEKS[0]]
    position = float((points[_TIP] - points[_CHEEKS[0]]) @ axis / max(float(axis @ axis), 1e-6))
    yaw = min(1.0, abs(2 * position - 1))
    return FaceDetection(box.astype(np.float32), score, control.astype(np.float32), yaw)


def _square_of(box: FloatArray) -> _Square:
    side = float(np.max(box[2:] - box[:2])) * _CROP_SCALE
    return _Square(float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2, side)


def _crop_square(frame: Frame, square: _Square) -> tuple[Frame, float, int, int]:
    """The square as (320, 320, 3) RGB, grey off the picture; with its pixels per frame pixel and left top corner."""
    side = max(16, round(square.side))
    left, top = round(square.x - side / 2), round(square.y - side / 2)
    height, width = frame.shape[:2]
    canvas = np.full((side, side, 3), 127, np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x1 > x0 and y1 > y0:
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
    mode = cv2.INTER_AREA if side > _CROP_SIDE else cv2.INTER_LINEAR
    resized = cv2.resize(canvas, (_CROP_SIDE, _CROP_SIDE), interpolation=mode)
    return np.asarray(resized, np.uint8), _CROP_SIDE / side, left, top


def _tiles(frame: Frame) -> Iterator[tuple[int, int, Frame]]:
    """Left, top and view of overlapping squares of half and, in large pictures, a quarter of the shorter side."""
    height, width = frame.shape[:2]
    for divisor in (2, 4):
        side = min(height, width) // divisor
        if side < 160:
            return
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield left, top, frame[top : top + side, left : left + side]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin so that neighbours overlap by a third or more and the last one ends at the edge."""
    count = max(1, int(np.ceil((length - side) / (side * 2 / 3))) + 1)
    return [round(value) for value in np.linspace(0, length - side, count)]


def _run_detection(model: Any, image: Frame) -> list[_Box]:
    """Boxes (4,) in pixels of `image` and scores."""
    height, width = image.shape[:2]
    scale = _SEARCH_SIDE / max(height, width)
    small: npt.NDArray[Any] = image
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    result = model.process(np.ascontiguousarray(small))
    candidates = []
    for detection in result.detections or ():
        position = detection.location_data.relative_bounding_box
        corners = (position.xmin, position.ymin, position.xmin + position.width, position.ymin + position.height)
        candidates.append(
            (np.array(corners, np.float32) * (width, height, width, height) - 0.5, float(detection.score[0]))
        )
    return [(box.astype(np.float32), score) for box, score in candidates]


def _solutions() -> Any:
    """The ``mediapipe.solutions`` module."""
    try:
        # Beside protobuf 6 the import prints a line about GetPrototype that means nothing and worries people.
        with contextlib.redirect_stderr(io.StringIO()):
            import mediapipe
    except ImportError as error:
        raise DependencyError(
            f"The face detector 'mediapipe' cannot be imported ({error}). Install the requirements: {install_command()}"
        ) from error
    if not hasattr(mediapipe, "solutions"):
        raise DependencyError(
            f"mediapipe {mediapipe.__version__} does not contain its models; 0.10.21 is the newest that does. "
            f"Install the requirements: {install_command()}"
        )
    return mediapipe.solutions
