"""Remove jitter from a face's pose without lagging behind its motion.

A pose is four numbers: x and y of the template center in frame pixels, the logarithm of frame pixels per crop pixel,
and the roll in radians. At each frame two curves are fitted to the neighbors on both sides: a straight line over a wide
span, which has little jitter, and a parabola over a narrow span, which follows motion. The line is used where it agrees
with the parabola to within the detector noise, the parabola where it agrees with the measured pose, and the measured
pose itself where motion is too fast for both; transitions between them are blended.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentsync.face.geometry.affine import FloatArray, face_template, fit_affine, invert_affine

Poses = npt.NDArray[np.float64]

NOISE = np.array([0.003, 0.003, 0.006, 0.003])
"""Detector noise: x and y relative to the brow distance, logarithm of the scale, roll in radians."""
_AGREE, _DIFFER = 1.8, 3.6  # differences, in units of NOISE: a fit counts fully below the first, not above the second
_NARROW = 0.5  # span of the parabola relative to that of the line


def brow_distance(resolution: int) -> float:
    """Distance between the brows in the template, in crop pixels."""
    template = face_template(resolution)
    return float(np.linalg.norm(template[1] - template[0]))


def to_poses(points: npt.ArrayLike, resolution: int) -> Poses:
    """Control points (n, 3, 2) in frame pixels -> poses (n, 4)."""
    inverse = invert_affine(fit_affine(points, face_template(resolution))).astype(np.float64)
    center = np.einsum("nij,j->ni", inverse[:, :, :2], face_template(resolution).mean(axis=0)) + inverse[:, :, 2]
    scale = np.hypot(inverse[:, 0, 0], inverse[:, 1, 0])
    roll = np.arctan2(inverse[:, 1, 0], inverse[:, 0, 0])
    return np.concatenate([center, np.log(scale)[:, None], roll[:, None]], axis=1)


def to_matrices(poses: Poses, resolution: int) -> FloatArray:
    """Poses (n, 4) -> matrices (n, 2, 3) float32, frame -> crop."""
    scale, roll = np.exp(poses[:, 2]), poses[:, 3]
    cosine, sine = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    shift = poses[:, :2] - np.einsum("nij,j->ni", linear, face_template(resolution).mean(axis=0).astype(np.float64))
    return invert_affine(np.concatenate([linear, shift[..., None]], axis=2))


def relative_step(first: Poses, second: Poses, resolution: int) -> Poses:
    """Difference of two poses (4,): x and y relative to the brow distance, logarithm of the scale ratio, roll."""
    step = second - first
    step[:2] /= np.exp(first[2]) * brow_distance(resolution)
    step[3] = (step[3] + np.pi) % (2 * np.pi) - np.pi
    return step


def _prefer(steady: Poses, exact: Poses, resolution: int) -> Poses:
    """Return `steady` where it equals `exact` up to noise, else `exact`, with a linear blend in between."""
    difference = float(np.linalg.norm(relative_step(steady, exact, resolution) / NOISE))
    exact_weight = float(np.clip((difference - _AGREE) / (_DIFFER - _AGREE), 0, 1))
    return steady + exact_weight * (exact - steady)


def _local_fit(offsets: npt.NDArray[np.float64], values: Poses, span: float, order: int) -> Poses:
    """Weighted least-squares polynomial through the samples at `offsets`, evaluated at offset 0: (4,)."""
    weights = np.exp(-0.5 * (offsets / (span / 2)) ** 2)
    order = min(order, len(offsets) - 1)
    powers = offsets[:, None] ** np.arange(order + 1)
    solution, *_ = np.linalg.lstsq(powers * weights[:, None], values * weights[:, None], rcond=None)
    return np.asarray(solution[0], np.float64)


def smooth_pose(offsets: npt.ArrayLike, poses: Poses, radius: int, resolution: int) -> Poses:
    """Smoothed pose (4,) of the frame at offset 0.

    offsets: (n,) frames before (negative) and after; poses: (n, 4) at these offsets, from one uninterrupted segment
    with continuous roll; radius: frames used on either side. A radius of 0 returns the measured pose.
    """
    frame_offsets = np.asarray(offsets, np.float64)
    measured = np.asarray(poses[int(np.argmin(np.abs(frame_offsets)))], np.float64)
    if radius < 1 or len(frame_offsets) == 1:
        return measured
    line = _local_fit(frame_offsets, poses, radius, 1)
    parabola = _local_fit(frame_offsets, poses, max(radius * _NARROW, 1.5), 2)
    return _prefer(line, _prefer(parabola, measured, resolution), resolution)
