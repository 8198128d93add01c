"""Whether an aligned crop shows a face."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from latentsync.face.detection.detector import FaceDetector, Frame
from latentsync.face.detection.mediapipe_detector import MediapipeDetector, MediapipeOptions
from latentsync.face.geometry.affine import crop_size

_SURROUND = 0.3
_MIN_FACE_RATIO = 0.3
_GREY = 127


class FaceCheck:
    """Looks for the face that an aligned crop should be filled by.

    The crop is brought back from the square to the shape of a face and given a grey surround: measured on 88 crops with
    a face and 9 pictures without one, every answer was right; without the surround a picture without a face passed.

    Args:
        make_detector: builds the detector when it is first needed; must be importable where workers are processes.

    Raises DependencyError at the first look where the detector is not installed.
    """

    def __init__(self, make_detector: Callable[[], FaceDetector] | None = None) -> None:
        self._make_detector = make_detector or _mediapipe
        self._detector: FaceDetector | None = None

    def check_available(self) -> None:
        """Build the detector once and free it again, so that a missing library is told before the work begins."""
        self._make_detector().close()

    def all_have_faces(self, frames: Iterable[Frame]) -> bool:
        """Whether each of the square crops (R, R, 3) uint8 RGB shows a face of a good part of its size."""
        return all(self._has_face(frame) for frame in frames)

    def _has_face(self, frame: Frame) -> bool:
        if self._detector is None:
            self._detector = self._make_detector()
        side = frame.shape[0]
        width, height = crop_size(side)
        face = cv2.resize(frame, (max(1, round(side * width / height)), side), interpolation=cv2.INTER_AREA)
        border = round(_SURROUND * side)
        framed = cv2.copyMakeBorder(face, *(border,) * 4, cv2.BORDER_CONSTANT, value=(_GREY,) * 3)
        # Detectors look near the last faces; an empty picture makes this one forget those of another clip.
        self._detector.detect(np.full_like(framed, _GREY))
        found = self._detector.detect(np.ascontiguousarray(framed))
        return any(detection.size >= _MIN_FACE_RATIO * side for detection in found)


def _mediapipe() -> FaceDetector:
    # Every frame is searched thoroughly, so that the answer does not depend on the frames before it.
    return MediapipeDetector(MediapipeOptions(tile_every=1))
