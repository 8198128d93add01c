"""InsightFace buffalo_l as the face detector: the one the published models were trained with.

Its code is MIT, but its model files are for non-commercial research only, so it is optional and never downloaded.
Frames are passed as RGB although it expects BGR: the published system does so, and its crops depend on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from latentsync.errors import DependencyError
from latentsync.face.detection.detector import FaceDetection, Frame, check_frame
from latentsync.face.detection.landmarks106 import RawFace, control_points, passes_filters
from latentsync.runtime.advice import install_command

MODEL_FILES = ("det_10g.onnx", "2d106det.onnx")
DEFAULT_ROOT = Path("checkpoints/auxiliary")

_SEARCH_SIZE = (512, 512)


class InsightfaceDetector:
    """Detects the faces that pass the published filters, with unrounded control points.

    Args:
        root: folder that contains ``models/buffalo_l/``.
        device: "cpu", "cuda" or "cuda:<number>".

    Raises DependencyError when the library or the model files are missing.
    """

    def __init__(self, root: Path = DEFAULT_ROOT, device: str = "cpu") -> None:
        folder = root / "models" / "buffalo_l"
        missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
        if missing:
            raise DependencyError(
                f"The face detector 'insightface' needs {', '.join(missing)} in '{folder}': fetch buffalo_l from the "
                "insightface project (non-commercial licence), or use the detector 'mediapipe', which needs no files."
            )
        self._analysis: Any = _face_analysis()(
            name="buffalo_l",
            root=str(root),
            allowed_modules=["detection", "landmark_2d_106"],
            providers=_providers(device),
        )
        context = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
        self._analysis.prepare(ctx_id=context, det_size=_SEARCH_SIZE)

    def search(self, frame: Frame) -> None:
        """Return None: the library detects boxes and landmarks in one call."""

    def detect(self, frame: Frame, candidates: None = None) -> list[FaceDetection]:
        """Detect faces in a frame (H, W, 3) uint8 RGB, highest score first. Raises ConfigError for other arrays."""
        check_frame(frame)
        faces = [as_detection(raw) for raw in map(_raw_face, self._analysis.get(frame)) if passes_filters(raw)]
        return sorted(faces, key=lambda face: -face.score)

    def close(self) -> None:
        """Free the models."""
        self._analysis = None


def as_detection(raw: RawFace) -> FaceDetection:
    """Convert a raw face to a detection with the published control points, not rounded."""
    return FaceDetection(raw.box.astype(np.float32), raw.score, control_points(raw.landmarks))


def _raw_face(face: Any) -> RawFace:
    landmarks = np.asarray(face.landmark_2d_106, np.float32)
    return RawFace(np.asarray(face.bbox, np.float32), float(face.det_score), landmarks)


def _providers(device: str) -> list[str]:
    return (["CUDAExecutionProvider"] if device.startswith("cuda") else []) + ["CPUExecutionProvider"]


def _face_analysis() -> Any:
    """Import ``insightface.app.FaceAnalysis``. Raises DependencyError."""
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise DependencyError(
            f"The face detector 'insightface' cannot be loaded ({error}): {install_command('insightface')}."
        ) from error
    return FaceAnalysis
