"""How far a mouth is open, measured in pictures by the face mesh, and how well two such curves agree."""

from types import TracebackType

import numpy as np
import numpy.typing as npt

from latentsync.errors import DependencyError
from latentsync.runtime.advice import install_command

Curve = npt.NDArray[np.float64]

_LIPS = (13, 14)  # middle of the upper and of the lower inner lip
_EYES = (33, 263)  # outer corners


class MouthMeter:
    """Reads the mouth of the one face in a picture; a context manager.

    Raises DependencyError when mediapipe is missing or of a release without bundled models.
    """

    def __init__(self) -> None:
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            raise DependencyError(
                "Measuring mouths needs mediapipe 0.10.21, which cannot be imported "
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
        """Gap between the inner lips over the distance of the outer eye corners; NaN where no face is found.

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
    """Pearson correlation of two curves (t,), NaN samples left out; NaN where fewer than three samples are left.

    Args:
        measured: may contain NaN.
        true: the same length.
        shift: compares ``measured[i + shift]`` with ``true[i]``, either sign.
    """
    if shift >= 0:
        measured, true = measured[shift:], true[: max(0, len(true) - shift)]
    else:
        measured, true = measured[:shift], true[-shift:]
    known = np.isfinite(measured) & np.isfinite(true)
    if known.sum() < 3 or np.ptp(measured[known]) == 0 or np.ptp(true[known]) == 0:
        return float("nan")
    return float(np.corrcoef(measured[known], true[known])[0, 1])
