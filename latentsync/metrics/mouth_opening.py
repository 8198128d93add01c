"""Mouth opening measured in frames by the face mesh, and the correlation of two such curves."""

from types import TracebackType

import numpy as np
import numpy.typing as npt

from latentsync.errors import DependencyError
from latentsync.runtime.advice import install_command

Curve = npt.NDArray[np.float64]

_LIPS = (13, 14)  # middle of the upper and of the lower inner lip
_EYES = (33, 263)  # outer corners


class MouthMeter:
    """Measures the mouth opening of the single face in a frame; a context manager.

    Raises:
        DependencyError: mediapipe is missing, or its release does not bundle the models.
    """

    def __init__(self) -> None:
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            raise DependencyError(
                "Measuring the mouth opening needs mediapipe 0.10.21, which cannot be imported "
                f"({error}); install the requirements: {install_command()}"
            ) from error
        self._mesh = FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)

    def __enter__(self) -> "MouthMeter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh.close()

    def opening(self, frame: npt.NDArray[np.uint8]) -> float:
        """Gap between the inner lips relative to the distance of the outer eye corners; NaN if no face is found.

        Args:
            frame: (h, w, 3) uint8 RGB.
        """
        faces = self._mesh.process(frame).multi_face_landmarks
        if not faces:
            return float("nan")
        size = np.array([frame.shape[1], frame.shape[0]], np.float64)
        upper, lower, left, right = (
            np.array([faces[0].landmark[index].x, faces[0].landmark[index].y]) * size for index in (*_LIPS, *_EYES)
        )
        across = np.array([-(right - left)[1], (right - left)[0]])
        return max(0.0, float((lower - upper) @ across / (across @ across)))


def correlation(measured: Curve, true: Curve, shift: int = 0) -> float:
    """Pearson correlation of two curves (t,), ignoring NaN samples.

    Args:
        measured: curve that may contain NaN.
        true: curve of the same length.
        shift: compares ``measured[i + shift]`` with ``true[i]``; either sign.

    Returns:
        The correlation; NaN if fewer than three samples are left or a curve is constant.
    """
    if shift >= 0:
        measured, true = measured[shift:], true[: max(0, len(true) - shift)]
    else:
        measured, true = measured[:shift], true[-shift:]
    valid = np.isfinite(measured) & np.isfinite(true)
    if valid.sum() < 3 or np.ptp(measured[valid]) == 0 or np.ptp(true[valid]) == 0:
        return float("nan")
    return float(np.corrcoef(measured[valid], true[valid])[0, 1])
