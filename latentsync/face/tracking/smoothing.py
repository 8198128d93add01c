"""Take the jitter out of a face's place without lagging behind its motion.

A place is four numbers: x and y of the template's middle in picture pixels, the logarithm of picture pixels per crop
pixel, and the roll in radians. Two fits to the neighbours on both sides are made at each frame: a straight line over a
wide span, which hardly jitters, and a parabola over a narrow one, which follows motion. The line is used where it
agrees with the parabola to within the detector's noise, the parabola where it agrees so with the measured place, and
the measured place itself in motion too quick for both; in between they are mixed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentsync.face.geometry.affine import FloatArray, face_template, fit_affine, invert_affine

Poses = npt.NDArray[np.float64]

NOISE = np.array([0.003, 0.003, 0.006, 0.003])
"""What the detector jitters by: x and y over the distance of the brows, logarithm of the scale, roll in radians."""
_AGREE, _DIFFER = 1.8, 3.6  # differences, in units of the noise, up to which and from which a fit counts or does not
_NARROW = 0.5  # span of the parabola over that of the line


def brow_distance(resolution: int) -> float:
    """Distance of the brows in the template, in crop pixels."""
    template = face_template(resolution)
    return float(np.linalg.norm(template[1] - template[0]))


def to_poses(points: npt.ArrayLike, resolution: int) -> Poses:
    """Control points (n, 3, 2) in picture pixels -> places (n, 4)."""
    back = invert_affine(fit_affine(points, face_template(resolution))).astype(np.float64)
    middle = np.einsum("nij,j->ni", back[:, :, :2], face_template(resolution).mean(axis=0)) + back[:, :, 2]
    scale = np.hypot(back[:, 0, 0], back[:, 1, 0])
    roll = np.arctan2(back[:, 1, 0], back[:, 0, 0])
    return np.concatenate([middle, np.log(scale)[:, None], roll[:, None]], axis=1)


def to_matrices(poses: Poses, resolution: int) -> FloatArray:
    """Places (n, 4) -> matrices (n, 2, 3) float32 picture -> crop."""
    scale, roll = np.exp(poses[:, 2]), poses[:, 3]
    cosine, sine = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    shift = poses[:, :2] - np.einsum("nij,j->ni", linear, face_template(resolution).mean(axis=0).astype(np.float64))
    return invert_affine(np.concatenate([linear, shift[..., None]], axis=2))


def relative_step(first: Poses, second: Poses, resolution: int) -> Poses:
    """From one place (4,) to another: x and y over the distance of the brows, logarithm of the scale, roll (4,)."""
    step = second - first
    step[:2] /= np.exp(first[2]) * brow_distance(resolution)
    step[3] = (step[3] + np.pi) % (2 * np.pi) - np.pi
    return step


def _prefer(steady: Poses, exact: Poses, resolution: int) -> Poses:
    """`steady` where it is as good as `exact` but for noise, else `exact`, with a smooth passage between."""
    difference = float(np.linalg.norm(relative_step(steady, exact, resolution) / NOISE))
    steady_weight = float(np.clip((difference - _AGREE) / (_DIFFER - _AGREE), 0, 1))
    return steady + steady_weight * (exact - steady)


def _local_fit(offsets: npt.NDArray[np.float64], values: Poses, span: float, order: int) -> Poses:
    """Value at offset 0 of the weighted least-squares polynomial through samples at `offsets`, (4,)."""
    weights = np.exp(-0.5 * (offsets / (span / 2)) ** 2)
    order = min(order, len(offsets) - 1)
    powers = offsets[:, None] ** np.arange(order + 1)
    solution, *_ = np.linalg.lstsq(powers * weights[:, None], values * weights[:, None], rcond=None)
    return np.asarray(solution[0], np.float64)


def smooth_pose(offsets: npt.ArrayLike, poses: Poses, radius: int, resolution: int) -> Poses:
    """The smoothed place (4,) of the frame at offset 0.

    offsets: (n,) frames before (negative) and after; places: (n, 4) there, of one uninterrupted stretch, rolls
    continuous; radius: frames on either side that count. A radius of 0 returns the place itself.
    """
    when = np.asarray(offsets, np.float64)
    measured = np.asarray(poses[int(np.argmin(np.abs(when)))], np.float64)
    if radius < 1 or len(when) == 1:
        return measured
    steady = _local_fit(when, poses, radius, 1)
    quick = _local_fit(when, poses, max(radius * _NARROW, 1.5), 2)
    return _prefer(steady, _prefer(quick, measured, resolution), resolution)
