"""The default face detector: MediaPipe's bundled models, which need no download and are licensed under Apache 2.0.

Boxes come from the face detection models; each face is then cropped and passed to the face mesh, so that a small face
in a large frame gets the same landmark accuracy as a large one. The crop window stays at the face's previous position
while the detection in the current frame agrees with it, which stabilizes the landmarks. A position is never kept
without being detected again, so the result neither lags behind motion nor persists across a scene cut.
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

# Mesh vertices corresponding to the 106-landmark groups that the published crop is fitted to: the upper edge of each
# brow from its outer end inward (43 48 49 51 50; 101..105), and the nose: lower bridge, tip, both wings (74 86 77 83).
LEFT_BROW = (70, 63, 105, 66, 107)
RIGHT_BROW = (300, 293, 334, 296, 336)
NOSE = (195, 4, 64, 294)
_CHEEKS = (234, 454)  # where the face meets the ears
_TIP = 4

_SEARCH_SIDE = 640  # longer side of the image passed to box detection; the models use at most 192 pixels
_CROP_SIDE = 320  # side of the square crop passed to the mesh
_CROP_SCALE = 1.7  # side of that crop relative to the longer side of the face

# Messages that the bundled models print to stderr at any log level; none of them is actionable.
_LOG_CHATTER = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|I\d{4} |W\d{4} [^\n]* (inference_feedback_manager|landmark_projection_calculator)\.cc:)[^\n]*\n"
)

_Box = tuple[FloatArray, float]
"""(4,) x0 y0 x1 y1 in image pixels, and the score."""


@dataclass(frozen=True)
class MediapipeOptions:
    """Limits of the face search."""

    min_score: float = 0.5
    """Detections below this score are dropped."""
    max_faces: int = 8
    """Faces per frame that are passed to the mesh, largest first."""
    tile_every: int = 5
    """While no face is found, the slow tiled search for small faces runs on every n-th frame."""


@dataclass(frozen=True)
class _Square:
    """A square region of a frame: center and side in pixels."""

    x: float
    y: float
    side: float


class MediapipeDetector:
    """Detects several faces per frame, each with the three control points.

    Args:
        options: limits of the search.

    Raises DependencyError when mediapipe is missing or its release has no bundled models.
    """

    def __init__(self, options: MediapipeOptions | None = None) -> None:
        self.options = options or MediapipeOptions()
        solutions = _solutions()
        score = self.options.min_score
        with suppress_stderr_lines(_LOG_CHATTER):
            self._near = solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=score)
            self._far = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=score)
            self._mesh = solutions.face_mesh.FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
            )
            # The graphs start in their own threads; after the first image all startup messages have been printed.
            for model in (self._near, self._far, self._mesh):
                model.process(np.zeros((_CROP_SIDE, _CROP_SIDE, 3), np.uint8))
        self._search_lock = threading.Lock()  # the detection models are not thread-safe
        self._mesh_is_quiet = False
        self._last_faces: list[FaceDetection] = []
        self._num_missed = 0

    def search(self, frame: Frame) -> list[_Box]:
        """Detect boxes with scores in a full frame (H, W, 3) uint8 RGB. Raises ConfigError for other arrays."""
        check_frame(frame)
        with self._search_lock:
            # One model is trained for distant faces, the other for close ones.
            return _run_detection(self._far, frame) or _run_detection(self._near, frame)

    def detect(self, frame: Frame, candidates: list[_Box] | None = None) -> list[FaceDetection]:
        """Detect faces in a frame (H, W, 3) uint8 RGB, highest score first. Raises ConfigError for other arrays.

        candidates: the result of `search` for this frame; None runs the search here.
        """
        check_frame(frame)
        faces = self._from_boxes(frame, self.search(frame) if candidates is None else candidates)
        if not faces:
            faces = self._from_last(frame)
        if not faces:
            if self._num_missed % self.options.tile_every == 0:
                faces = self._from_boxes(frame, self._search_tiles(frame))
            self._num_missed += 1
        if faces:
            self._num_missed = 0
        self._last_faces = faces
        return sorted(faces, key=lambda face: -face.score)

    def close(self) -> None:
        """Free the models."""
        for model in (self._near, self._far, self._mesh):
            model.close()

    def _search_tiles(self, frame: Frame) -> list[_Box]:
        """Detect boxes in overlapping tiles, for faces too small to be detected in the full frame."""
        candidates: list[_Box] = []
        for left, top, tile in _tiles(frame):
            with self._search_lock:
                boxes = _run_detection(self._far, tile)
            for box, score in boxes:
                candidates.append((box + np.array([left, top, left, top], np.float32), score))
        return candidates

    def _from_boxes(self, frame: Frame, boxes: list[_Box]) -> list[FaceDetection]:
        """Run the mesh on each box, largest first; a face reached from two boxes counts once."""
        faces: list[FaceDetection] = []
        largest = sorted(boxes, key=lambda entry: -float(np.prod(entry[0][2:] - entry[0][:2])))
        for box, score in largest[: self.options.max_faces]:
            face = self._detect_in_square(frame, self._square_for_box(box), score)
            if face is not None and all(box_overlap(face.box, other.box) < 0.5 for other in faces):
                faces.append(face)
        return faces

    def _from_last(self, frame: Frame) -> list[FaceDetection]:
        """Faces still at their previous position although the full-frame search missed them."""
        retried = (
            self._detect_in_square(frame, _square_around(face.box), self.options.min_score) for face in self._last_faces
        )
        return [face for face in retried if face is not None]

    def _square_for_box(self, box: FloatArray) -> _Square:
        """The crop square for a detected box: around the face's previous position if the box confirms it."""
        for face in self._last_faces:
            inside = np.all(np.abs((box[:2] + box[2:]) / 2 - face.center) < 0.25 * face.size)
            if inside and 0.5 < float(np.sqrt(np.prod(box[2:] - box[:2]))) / face.size < 1.2:
                return _square_around(face.box)
        center, side = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2]))
        # The models' boxes span brows to chin, so the center of the whole face is higher and its size larger.
        return _Square(float(center[0]), float(center[1]) - 0.1 * side, side * 1.3 * _CROP_SCALE)

    def _detect_in_square(self, frame: Frame, square: _Square, score: float) -> FaceDetection | None:
        """Detect the face in a square of the frame; None if the mesh finds none."""
        crop, scale, left, top = _crop_square(frame, square)
        result = self._landmarks(crop)
        if not result:
            return None
        points = np.array([(point.x, point.y) for point in result[0].landmark]) * _CROP_SIDE
        return _as_detection((points / scale + (left, top) - 0.5).astype(np.float32), score)

    def _landmarks(self, crop: Frame) -> Any:
        """Run the mesh; it prints one more startup message with its first face."""
        if self._mesh_is_quiet:
            return self._mesh.process(crop).multi_face_landmarks
        with suppress_stderr_lines(_LOG_CHATTER):
            result = self._mesh.process(crop).multi_face_landmarks
        self._mesh_is_quiet = bool(result)
        return result


def _as_detection(points: FloatArray, score: float) -> FaceDetection | None:
    """(478, 2) mesh points in pixels -> detection; None for a degenerate mesh."""
    control = np.stack([points[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])
    if np.linalg.norm(control[1] - control[0]) < 2:
        return None
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    axis = points[_CHEEKS[1]] - points[_CHEEKS[0]]
    position = float((points[_TIP] - points[_CHEEKS[0]]) @ axis / max(float(axis @ axis), 1e-6))
    yaw = min(1.0, abs(2 * position - 1))
    return FaceDetection(box.astype(np.float32), score, control.astype(np.float32), yaw)


def _square_around(box: FloatArray) -> _Square:
    side = float(np.max(box[2:] - box[:2])) * _CROP_SCALE
    return _Square(float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2, side)


def _crop_square(frame: Frame, square: _Square) -> tuple[Frame, float, int, int]:
    """Crop a square to (320, 320, 3) RGB, gray outside the frame.

    Returns the crop, its scale (crop pixels per frame pixel), and the left and top of the square in the frame.
    """
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
    """Yield left, top and view of overlapping square tiles of 1/2 and, in large frames, 1/4 of the shorter side."""
    height, width = frame.shape[:2]
    for divisor in (2, 4):
        side = min(height, width) // divisor
        if side < 160:
            return
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield left, top, frame[top : top + side, left : left + side]


def _starts(length: int, side: int) -> list[int]:
    """Tile offsets such that neighbors overlap by at least a third and the last tile ends at the edge."""
    count = max(1, int(np.ceil((length - side) / (side * 2 / 3))) + 1)
    return [round(value) for value in np.linspace(0, length - side, count)]


def _run_detection(model: Any, image: Frame) -> list[_Box]:
    """Run a detection model; returns boxes (4,) in pixels of `image` and scores."""
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
    """Import the ``mediapipe.solutions`` module. Raises DependencyError."""
    try:
        # With protobuf 6 the import prints a harmless but alarming line about GetPrototype.
        with contextlib.redirect_stderr(io.StringIO()):
            import mediapipe
    except ImportError as error:
        raise DependencyError(
            f"The face detector 'mediapipe' cannot be imported ({error}). Install the requirements: {install_command()}"
        ) from error
    if not hasattr(mediapipe, "solutions"):
        raise DependencyError(
            f"mediapipe {mediapipe.__version__} no longer bundles its models; 0.10.21 is the last release that does. "
            f"Install the requirements: {install_command()}"
        )
    return mediapipe.solutions
