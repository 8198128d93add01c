"""The aligned crop: the similarity transform that maps a face's three control points onto the published template.

Coordinates are (x, y) in pixels with pixel centers at integers (OpenCV's align-corners geometry). Every matrix is
(2, 3) and maps image pixels to crop pixels: ``crop = M[:, :2] @ image + M[:, 2]``. The crop has the size
``crop_size(R)`` (3:4) and is stretched to an R x R square afterwards; ``square_matrix`` maps straight to the square.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError, FaceNotFoundError

FloatArray = npt.NDArray[np.float32]

_TEMPLATE = ((17.0, 20.0), (58.0, 20.0), (37.5, 40.0))  # left brow, right brow, nose
_CROP = (75, 100)  # width, height in template units
_RATIO_256 = 2.8
_SMOOTHING_DECAY = 0.2  # weight of the previous state in the published smoothing


def crop_ratio(resolution: int) -> float:
    """Crop pixels per template unit for a face resolution R (256 -> 2.8). Raises ConfigError unless R >= 8."""
    if resolution < 8:
        raise ConfigError(f"Face resolution {resolution} is too small: give 8 or more (published models: 256 or 512).")
    return resolution / 256 * _RATIO_256


def face_template(resolution: int) -> FloatArray:
    """Target positions of the control points: (3, 2) float32 = left brow, right brow, nose; (x, y) in crop pixels."""
    return (np.asarray(_TEMPLATE) * crop_ratio(resolution)).astype(np.float32)


def crop_size(resolution: int) -> tuple[int, int]:
    """(width, height) of the crop in pixels: (210, 280) for 256, (420, 560) for 512."""
    ratio = crop_ratio(resolution)
    return int(_CROP[0] * ratio), int(_CROP[1] * ratio)


def _normalize(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """(n, 3, 2) -> standardized points (n, 3, 2), mean (n, 2), spread (n,): sample std. dev. of the six coordinates."""
    mean = points.mean(axis=1)
    centered = points - mean[:, None]
    spread = centered.reshape(len(points), 6).std(axis=1, ddof=1)
    if not np.all(np.isfinite(spread)) or np.any(spread < 1e-6):
        raise FaceNotFoundError(
            "Cannot align a face: its three control points coincide or are not finite; drop this detection."
        )
    return centered / spread[:, None, None], mean, spread


def _similarity(points: npt.NDArray[np.float64], template: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, 3, 2) points, (3, 2) template -> (n, 2, 3) least-squares rotation, scale and translation."""
    source, source_mean, source_spread = _normalize(points)
    target, target_mean, target_spread = _normalize(template[None])
    u, _, vt = np.linalg.svd(np.einsum("nki,kj->nij", source, target[0]))
    v = np.swapaxes(vt, 1, 2)
    mirrored = np.linalg.det(v @ np.swapaxes(u, 1, 2)) < 0
    v[mirrored, :, -1] *= -1
    linear = (v @ np.swapaxes(u, 1, 2)) * (target_spread / source_spread)[:, None, None]
    shift = target_mean - np.einsum("nij,nj->ni", linear, source_mean)
    return np.concatenate([linear, shift[..., None]], axis=2)


def fit_affine(points: npt.ArrayLike, template: npt.ArrayLike) -> FloatArray:
    """Fit the similarity transform from each frame's control points to the template.

    points: (n, 3, 2) in image pixels, not rounded; template: (3, 2) in crop pixels.
    Returns (n, 2, 3) float32, image -> crop. Raises FaceNotFoundError when the points of a frame coincide.
    """
    return _similarity(np.asarray(points, np.float64), np.asarray(template, np.float64)).astype(np.float32)


def published_smoothing(
    points: npt.ArrayLike, template: npt.ArrayLike, state: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute matrices exactly as the published system does: rounded points and its sub-pixel bias state.

    points: (n, 3, 2) of consecutive frames in image pixels; template: (3, 2) in crop pixels; state: (2,) of the
    previous frame, None at the start of a video. Returns matrices (n, 2, 3) float32 image -> crop, and the state after
    every frame, (n, 2) float32. The smoothing effect is small; `FaceTracker` is what removes jitter.
    """
    rounded = np.rint(np.asarray(points, np.float64))
    target = np.asarray(template, np.float64)
    matrices = _similarity(rounded, target)
    bias = _normalize(target[None])[0][:, 2] - _normalize(rounded)[0][:, 2]
    states = np.empty_like(bias)
    current = None if state is None else np.asarray(state, np.float64)
    for index, value in enumerate(bias):
        current = value if current is None else _SMOOTHING_DECAY * current + (1 - _SMOOTHING_DECAY) * value
        states[index] = current
    matrices[:, :, 2] += states
    return matrices.astype(np.float32), states.astype(np.float32)


def invert_affine(matrices: npt.ArrayLike) -> FloatArray:
    """Invert affine matrices (..., 2, 3), such as image -> crop to crop -> image; float32."""
    forward = np.asarray(matrices, np.float64)
    linear = np.linalg.inv(forward[..., :2])
    shift = -(linear @ forward[..., 2:])
    return np.concatenate([linear, shift], axis=-1).astype(np.float32)


def apply_affine(matrices: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Apply (..., 2, 3) matrices to (..., k, 2) points (x, y) -> (..., k, 2) float32."""
    affine = np.asarray(matrices, np.float64)
    mapped = np.asarray(points, np.float64) @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]
    return mapped.astype(np.float32)


def stretch_matrix(matrices: npt.ArrayLike, size: tuple[int, int], new_size: tuple[int, int]) -> FloatArray:
    """Retarget (..., 2, 3) matrices from an image of `size` (width, height) to that image resized to `new_size`.

    A resize preserves the outer edges of the image, not the centers of its corner pixels; the half-pixel offset is
    accounted for.
    """
    scale = np.array([new_size[0] / size[0], new_size[1] / size[1]])
    stretched = np.asarray(matrices, np.float64) * scale[:, None]
    stretched[..., 2] += 0.5 * scale - 0.5
    return stretched.astype(np.float32)


def square_matrix(matrices: npt.ArrayLike, resolution: int) -> FloatArray:
    """Turn (..., 2, 3) image -> crop matrices into image -> stretched R x R square."""
    return stretch_matrix(matrices, crop_size(resolution), (resolution, resolution))
