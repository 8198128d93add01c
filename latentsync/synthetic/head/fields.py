"""Displacement fields of a portrait: a linear basis of all motions and shape variations of the face.

Each mode is a displacement field on a coarse grid over the portrait, in portrait pixels for a coefficient of 1. Fields
add up linearly, so the fields of a whole clip are one matrix product. Three layers move differently: ``STILL`` (skull:
eyes, teeth), ``UPPER`` (skin above the lip line) and ``LOWER`` (lower lip and below). Separate layers for the two lips
let the mouth close without compressing the pixels between them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentsync.synthetic.head.portrait import (
    EYE_LOWER,
    EYE_UPPER,
    FACE_OVAL,
    INNER_LOWER,
    INNER_UPPER,
    LIP_CUT,
    OUTER_LOWER,
    OUTER_UPPER,
    Portrait,
    smoothstep,
)
from latentsync.synthetic.head.spline import Array, ThinPlateSpline, squared_distances
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS

GRID = 128
STILL, UPPER, LOWER = range(3)
OPEN_SHIFT = 0.40
"""Displacement of the lower lip at full opening, in mouth widths."""

FACE_MODES: tuple[str, ...] = ("rest", *MOUTH_PARAMETERS, "smile", "blink", "brow")
LIP_MODES: tuple[str, ...] = ("lip_upper", "lip_lower")
HEAD_MODES: tuple[str, ...] = ("shift_x", "shift_y", "roll", "yaw", "pitch", "lean")
SHAPE_MODES: tuple[str, ...] = (
    *("face_width", "jaw_width", "face_length", "chin", "nose_width", "nose_length", "eye_size", "eye_spacing"),
    *("brow_height", "mouth_size", "mouth_width", "mouth_height", "cheeks"),
    *("wave_0", "wave_1", "wave_2", "wave_3"),
)
MODES: tuple[str, ...] = (*FACE_MODES, *LIP_MODES, *HEAD_MODES, *SHAPE_MODES)

_BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
_FIXED = (
    168,
    6,
    197,
    195,
    5,
    4,
    1,
    2,
    98,
    327,
    129,
    358,
    94,
    50,
    280,
    117,
    346,
    123,
    352,
    151,
    9,
    8,
    36,
    266,
    101,
    330,
)
_JAW = (
    199,
    200,
    175,
    147,
    376,
    213,
    433,
    192,
    416,
    211,
    431,
    135,
    364,
    169,
    394,
    170,
    395,
    171,
    396,
    208,
    428,
    138,
    367,
)
_UNDER_LIP = (18, 83, 313, 182, 406, 201, 421)


@dataclass(frozen=True)
class Fields:
    """All modes of one portrait, as tensors on one device.

    Attributes:
        grids: (K, 3, 2, G, G) float32 displacements (x, y) in portrait pixels, for the three layers.
        points: (478, 2) float32 mesh points of the portrait in pixels; those of the inner lips lie on the edges of
            the layers.
        point_shifts: (K, 478, 2) float32 displacements of the mesh points in pixels.
    """

    grids: Tensor
    points: Tensor
    point_shifts: Tensor

    def to(self, device: torch.device | str) -> "Fields":
        """Copy to ``device``."""
        return Fields(self.grids.to(device), self.points.to(device), self.point_shifts.to(device))


def build_fields(portrait: Portrait) -> Fields:
    """Compute all modes of a portrait (about a second on one core)."""
    ticks = np.linspace(0, portrait.size - 1, GRID)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1).reshape(-1, 2)
    whole = _whole_head_modes(portrait, grid)
    upper, lower = (_spline_modes(portrait, grid, layer) for layer in (UPPER, LOWER))
    support = _mouth_support(portrait, grid)[:, None]
    for name in MOUTH_PARAMETERS:
        upper[MODES.index(name)] *= support
        lower[MODES.index(name)] *= support
    still = np.zeros_like(upper)
    layers = [np.concatenate([local, whole]) for local in (still, upper, lower)]
    grids = torch.from_numpy(np.stack(layers, axis=1).astype(np.float32))
    grids = grids.reshape(len(MODES), 3, GRID, GRID, 2).permute(0, 1, 4, 2, 3).contiguous()
    points = torch.from_numpy(_rendered_points(portrait))
    where = (points / (portrait.size - 1) * 2 - 1).expand(len(MODES), 1, -1, -1)
    shifts = [
        torch.nn.functional.grid_sample(grids[:, layer], where, align_corners=True)[:, :, 0].mT
        for layer in (UPPER, LOWER)
    ]
    in_lower_layer = torch.zeros(478, dtype=torch.bool)
    in_lower_layer[list((*INNER_LOWER[1:-1], *OUTER_LOWER[1:-1], *_UNDER_LIP, 199, 200, 175, 152))] = True
    return Fields(grids, points, torch.where(in_lower_layer[None, :, None], shifts[1], shifts[0]).contiguous())


def _rendered_points(portrait: Portrait) -> npt.NDArray[np.float32]:
    """(478, 2) mesh points, with those of the inner lips moved to the edges that the renderer shows."""
    points = portrait.points[:, :2].copy()
    _, across = portrait.mouth_axis
    points[list(INNER_UPPER[1:-1])] -= LIP_CUT * across
    points[list(INNER_LOWER[1:-1])] += LIP_CUT * across
    return points


def _mouth_support(portrait: Portrait, grid: Array) -> Array:
    """(n,) 1 where speech may move the face, 0 on the eyes, ears, chest and beyond.

    A thin-plate spline has global support, but takes that differ only in the speech must be identical there.
    """
    u, v = (np.asarray(x, np.float64) for x in portrait.mouth_coordinates_of(grid))
    support = smoothstep(v, -0.9, -0.5)
    if portrait.still_clothes:
        beyond = np.hypot(
            np.maximum(0, v - _mouth_local(portrait, 152)[1]) / 0.9, np.maximum(0, np.abs(u) - 0.85) / 0.6
        )
        support = support * (1 - smoothstep(beyond, 0, 1))
    return np.asarray(support)


def _spline_modes(portrait: Portrait, grid: Array, layer: int) -> Array:
    """Modes of ``FACE_MODES`` and ``LIP_MODES`` on ``grid`` (n, 2): (K, n, 2), interpolated by a thin-plate spline."""
    indices, shifts = _control_shifts(portrait, layer)
    border = np.linspace(0, portrait.size - 1, 6)
    chin, oval_height = portrait.points[152, :2], np.ptp(portrait.points[list(FACE_OVAL), 1])
    neck = [chin + np.array([dx, dy]) * oval_height for dx in (-0.35, 0.0, 0.35) for dy in (0.3, 0.5)]
    edge = [(x, y) for x in border for y in border if x in border[[0, -1]] or y in border[[0, -1]]]
    oval = portrait.points[list(FACE_OVAL), :2]
    middle = (oval.min(0) + oval.max(0)) / 2
    hair = [middle + radius * (point - middle) for point in oval if point[1] < middle[1] for radius in (1.25, 1.6)]
    anchors = np.array([*edge, *neck, *hair])
    centers = np.concatenate([portrait.points[indices, :2].astype(np.float64), anchors]) / portrait.size
    values = np.concatenate([shifts, np.zeros((shifts.shape[0], len(anchors), 2))], axis=1)
    flat = values.transpose(1, 0, 2).reshape(len(centers), -1)
    spline = ThinPlateSpline(centers * portrait.size, portrait.size)
    return np.asarray(spline(flat, grid).reshape(len(grid), -1, 2).transpose(1, 0, 2))


def _control_shifts(portrait: Portrait, layer: int) -> tuple[list[int], Array]:
    """Mesh indices that control a layer, and their shifts (K, n, 2) in pixels for FACE_MODES + LIP_MODES."""
    lips = (INNER_UPPER, OUTER_UPPER) if layer == UPPER else (INNER_LOWER, OUTER_LOWER)
    eyes = tuple(index for group in (*EYE_UPPER, *EYE_LOWER) for index in group)
    extra = _UNDER_LIP if layer == LOWER else ()
    all_indices = (*lips[0], *lips[1], *eyes, *_BROWS, *_FIXED, *_JAW, *FACE_OVAL, *extra)
    indices = list(dict.fromkeys(all_indices))
    slot = {index: i for i, index in enumerate(indices)}
    local = np.zeros((len(FACE_MODES) + len(LIP_MODES), len(indices), 2))
    _lip_shifts(portrait, layer, slot, local)
    _jaw_shifts(portrait, layer, slot, local)
    along, across = portrait.mouth_axis
    shifts = (local[..., :1] * along + local[..., 1:] * across) * portrait.mouth_width
    _eye_shifts(portrait, slot, shifts)
    return indices, shifts


def _lip_shifts(portrait: Portrait, layer: int, slot: dict[int, int], local: Array) -> None:
    """Fill in the shifts of the lip points, in mouth widths along and across the mouth."""
    mode = {name: i for i, name in enumerate((*FACE_MODES, *LIP_MODES))}
    inner, outer = (INNER_UPPER, OUTER_UPPER) if layer == UPPER else (INNER_LOWER, OUTER_LOWER)
    up, low = (1.0, 0.0) if layer == UPPER else (0.0, 1.0)
    sign = low - up
    positions = {index: _mouth_local(portrait, index) for index in (*inner, *outer)}
    for group, half, is_outer in ((inner, 0.455, 0.0), (outer, 0.5, 1.0)):
        left, right = positions[group[0]][0], positions[group[-1]][0]
        for number, index in enumerate(group):
            s = 2 * (positions[index][0] - left) / (right - left) - 1
            hump, soft = max(0.0, 1 - s * s) ** 0.6, 1 - s * s
            thickness = positions[outer[number]] - positions[inner[number]]
            closed = np.array([half * s, 0.012 * s * s - 0.03 * soft * low + is_outer * 1.08 * thickness[1]])
            row = local[:, slot[index]]
            row[mode["rest"]] = closed - positions[index]
            lift = -0.055 * up * hump + OPEN_SHIFT * low * (1 - 0.07 * is_outer) * hump
            row[mode["open"]] = (-0.05 * s, lift + 0.07 * (1 - hump))
            row[mode["width"]] = (0.085 * s, -0.02 * s * s - sign * is_outer * 0.015 * soft)
            row[mode["rounding"]] = (-0.1 * s, sign * soft * (0.01 + 0.075 * is_outer))
            row[mode["press"]] = (0.0, soft * (0.01 * up - sign * is_outer * 0.045))
            row[mode["tuck"]] = (0.0, -soft * (0.05 * up + low * (0.04 + 0.05 * is_outer)))
            row[mode["raise"]] = (0.0, soft * (0.02 * low - 0.05 * up))
            row[mode["smile"]] = (0.07 * s, -0.09 * s * s + 0.02 * soft)
            row[mode["lip_upper"]] = (0.0, -0.1 * is_outer * soft * up)
            row[mode["lip_lower"]] = (0.0, 0.1 * is_outer * soft * low)


def _mouth_local(portrait: Portrait, index: int) -> Array:
    along, across = portrait.mouth_axis
    local = (portrait.points[index, :2] - portrait.mouth_center) / portrait.mouth_width
    return np.array([local @ along, local @ across], np.float64)


def _jaw_shifts(portrait: Portrait, layer: int, slot: dict[int, int], local: Array) -> None:
    """Let chin, jaw line and cheeks follow the opening, fading out toward the sides and above the mouth."""
    mode = {name: i for i, name in enumerate((*FACE_MODES, *LIP_MODES))}
    chin = _mouth_local(portrait, 152)[1]
    half_face = (portrait.points[454, 0] - portrait.points[234, 0]) / 2 / portrait.mouth_width
    closing = 0.5 * (_mouth_local(portrait, 13)[1] - _mouth_local(portrait, 14)[1])
    for index in (*FACE_OVAL, *_JAW, *_UNDER_LIP):
        if index not in slot:
            continue
        u, v = _mouth_local(portrait, index)
        follow = float(smoothstep(np.array(v), -0.15, 0.8 * chin)) * max(0.0, 1 - 0.75 * (u / half_face) ** 2)
        below = 0.95 if index in _UNDER_LIP else 0.72
        row = local[:, slot[index]]
        row[mode["open"]] = (-0.02 * u, OPEN_SHIFT * below * (max(follow, 0.95) if index in _UNDER_LIP else follow))
        row[mode["rest"]] = (0.0, closing * (0.9 if index in _UNDER_LIP else 0.5 * follow))
        row[mode["rounding"]] = (-0.04 * u * follow, 0.02 * follow)
        row[mode["tuck"]] = (0.0, -0.04 if index in _UNDER_LIP else 0.0)


def _eye_shifts(portrait: Portrait, slot: dict[int, int], shifts: Array) -> None:
    """Fill in the shifts, in pixels, that close the upper lids onto the lower ones and raise the brows."""
    mode = {name: i for i, name in enumerate(FACE_MODES)}
    points = portrait.points[:, :2].astype(np.float64)
    for upper, lower in zip(EYE_UPPER, EYE_LOWER, strict=True):
        bottom = points[list(lower)]
        bottom = bottom[np.argsort(bottom[:, 0])]
        for index in upper[1:-1]:
            down = np.interp(points[index, 0], bottom[:, 0], bottom[:, 1]) - points[index, 1]
            shifts[mode["blink"], slot[index]] = (0.0, max(0.0, down))
    for index in _BROWS:
        shifts[mode["brow"], slot[index]] = (0.0, -0.06 * portrait.eye_distance)


def _whole_head_modes(portrait: Portrait, grid: Array) -> Array:
    """Modes of ``HEAD_MODES`` and ``SHAPE_MODES`` on ``grid`` (n, 2): (K, n, 2)."""
    weight, depth = head_weight(portrait, grid), relief(portrait, grid)
    unit = portrait.eye_distance
    oval = portrait.points[list(FACE_OVAL), :2].astype(np.float64)
    center, height = (oval.min(0) + oval.max(0)) / 2, np.ptp(oval[:, 1])
    pivot = np.array([center[0], oval[:, 1].max() + 0.25 * height])
    from_center, from_pivot = grid - center, grid - pivot
    ones, zeros = np.ones(len(grid)), np.zeros(len(grid))
    head = [
        np.stack([ones * unit, zeros], -1),
        np.stack([zeros, ones * unit], -1),
        np.stack([-from_pivot[:, 1], from_pivot[:, 0]], -1),
        np.stack([depth, zeros], -1),
        np.stack([zeros, depth], -1),
        from_center,
    ]
    return np.stack([field * weight[:, None] for field in (*head, *_shapes(portrait, grid, from_center))])


def head_weight(portrait: Portrait, grid: Array) -> Array:
    """1 on head and hair, falling to 0 over neck and shoulders and at the image border: (n,)."""
    oval = portrait.points[list(FACE_OVAL), :2].astype(np.float64)
    low, high = oval.min(0), oval.max(0)
    size, bottom = high - low, high[1]
    center = np.array([(low[0] + high[0]) / 2, bottom - 0.75 * size[1]])
    distance = np.linalg.norm((grid - center) / (size * np.array([0.95, 0.95])), axis=1)
    inside = 1 - smoothstep(distance, 0.85, 1.5)
    neck = 1 - smoothstep(grid[:, 1], bottom + 0.02 * size[1], bottom + 0.75 * size[1])
    margin = np.minimum(grid, portrait.size - 1 - grid).min(1) / portrait.size
    return np.asarray(inside * neck * smoothstep(margin, 0.0, 0.06))


def relief(portrait: Portrait, grid: Array) -> Array:
    """Height of each grid point toward the camera relative to the rim of the face, in pixels: (n,)."""
    points = portrait.points[:468].astype(np.float64)
    rim = points[list(FACE_OVAL), 2].mean()
    height = rim - points[:, 2]
    spread = 0.1 * portrait.eye_distance
    near = np.exp(-0.5 / spread**2 * squared_distances(grid, points[:, :2]))
    height_here = (near @ height) / (near.sum(1) + 0.3)
    # The head turns about an axis inside it, so points on the rim move the opposite way.
    return np.asarray(height_here - 0.45 * height.mean())


def _shapes(portrait: Portrait, grid: Array, from_center: Array) -> list[Array]:
    """The fields of ``SHAPE_MODES`` before the head weight, each (n, 2)."""
    unit = portrait.eye_distance
    points = portrait.points[:, :2].astype(np.float64)
    zeros = np.zeros(len(grid))
    down = portrait.mouth_coordinates_of(grid)[1].astype(np.float64)

    def bump(index: int | Array, x_scale: float, y_scale: float) -> Array:
        position = points[index] if isinstance(index, int) else index
        return np.asarray(np.exp(-0.5 * (((grid - position) / (unit * np.array([x_scale, y_scale]))) ** 2).sum(1)))

    eyes, mouth, nose = (points[468], points[473]), points[[13, 14]].mean(0), points[4]
    below = smoothstep(down, -0.5, 0.9)
    eye_bumps = [bump(eye, 0.22, 0.16) for eye in eyes]
    mouth_bump = bump(mouth, 0.5, 0.35)
    fields = [
        np.stack([from_center[:, 0], zeros], -1),
        np.stack([from_center[:, 0] * below, zeros], -1),
        np.stack([zeros, from_center[:, 1]], -1),
        np.stack([zeros, unit * smoothstep(down, 0.25, 0.95)], -1),
        np.stack([(grid[:, 0] - nose[0]) * bump(4, 0.2, 0.25), zeros], -1),
        np.stack([zeros, unit * bump(4, 0.25, 0.25)], -1),
        sum((grid - eye) * near[:, None] for eye, near in zip(eyes, eye_bumps, strict=True)),
        np.stack([unit * (eye_bumps[1] - eye_bumps[0]), zeros], -1),
        np.stack([zeros, -unit * (bump(105, 0.3, 0.12) + bump(334, 0.3, 0.12))], -1),
        (grid - mouth) * mouth_bump[:, None],
        np.stack([(grid[:, 0] - mouth[0]) * mouth_bump, zeros], -1),
        np.stack([zeros, unit * bump(mouth, 0.6, 0.3)], -1),
        np.stack([unit * (bump(454, 0.3, 0.5) - bump(234, 0.3, 0.5)), zeros], -1),
    ]
    generator = np.random.default_rng(7)
    for _ in range(4):
        waves = generator.uniform(-1, 1, (2, 2)) * 2.2 / unit
        phases = generator.uniform(0, 2 * np.pi, 2)
        fields.append(
            unit * np.stack([np.sin(grid @ wave + phase) for wave, phase in zip(waves, phases, strict=True)], -1)
        )
    return [np.asarray(field) for field in fields]
