"""Blend two portraits: head and hair of one, with a face interpolated in shape and texture toward the other.

Both portraits have the same mesh topology. A thin-plate spline warps each image onto interpolated mesh points, and the
warped images are mixed within the outline of the face. Eyes and brows (with spectacles) are never mixed but taken from
one portrait, because half-transparent spectacle frames would give the blend away.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from latentsync.synthetic.head.portrait import FACE_OVAL, Portrait, load_portrait, smoothstep
from latentsync.synthetic.head.spline import Array, ThinPlateSpline
from latentsync.synthetic.head.texture import blur_image, sharpen_portrait

_GRID = 96
_LIGHT_SIGMA = 36.0  # pixels: coarser structure is treated as lighting and matched between the two images


@dataclass(frozen=True)
class Blend:
    """Parameters of a blend.

    Attributes:
        head: portrait that provides hair, clothes and neck.
        other: portrait that is mixed in.
        geometry: weight of the other's shape, 0 to 1.
        texture: weight of the other's skin, 0 to 1.
        other_eyes: whether eyes and brows are taken from the other portrait.
    """

    head: str
    other: str
    geometry: float
    texture: float
    other_eyes: bool


BLENDS: dict[str, Blend] = {
    "collins_0": Blend("collins", "hopper", 0.0, 0.0, False),
    "collins_25": Blend("collins", "hopper", 0.30, 0.25, False),
    "collins_50": Blend("collins", "hopper", 0.60, 0.50, False),
    "collins_75": Blend("collins", "hopper", 0.85, 0.75, False),
    "hopper_0": Blend("hopper", "collins", 0.0, 0.0, False),
    "hopper_25": Blend("hopper", "collins", 0.30, 0.40, False),
    "hopper_50": Blend("hopper", "collins", 0.60, 0.60, True),
    "hopper_75": Blend("hopper", "collins", 0.85, 0.85, True),
}


def load_face(name: str, folder: Path | None = None) -> Portrait:
    """Load a portrait, or a blend of two (``BLENDS``), by its name.

    Raises:
        ConfigError, DependencyError, MediaError: see `load_portrait`.
    """
    blend = BLENDS.get(name)
    if blend is None:
        return load_portrait(name, folder)
    return blend_portraits(name, load_portrait(blend.head, folder), load_portrait(blend.other, folder), blend)


def blend_portraits(name: str, head: Portrait, other: Portrait, blend: Blend) -> Portrait:
    """Mix two portraits of the same size (about a second)."""
    size = head.size
    head_points = head.points.astype(np.float64)
    other_points = _align_points(other.points.astype(np.float64), head.points)
    target = head_points + blend.geometry * (other_points - head_points)
    ticks = np.linspace(0, size - 1, _GRID)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1).reshape(-1, 2)
    anchors = _fixed_anchors(target, size)
    head_spline = ThinPlateSpline(np.concatenate([target[:, :2], anchors]), size, 1e-5)
    to_head = head_spline(np.concatenate([head_points[:, :2] - target[:, :2], np.zeros_like(anchors)]), grid) + grid
    to_other = ThinPlateSpline(target[:, :2], size, 1e-5)(other.points[:, :2] - target[:, :2], grid) + grid
    warped_head = _warp_planes(_planes(head), to_head, size)
    warped_other = _warp_planes(_planes(other), to_other, size)
    weight = torch.from_numpy(_blend_weight(target, grid, blend).astype(np.float32)).reshape(1, 1, _GRID, _GRID)
    weight = F.interpolate(weight, size=(size, size), mode="bicubic", align_corners=True)[0].clamp(0, 1)
    warped_other[:3] = _match_lighting(warped_other, warped_head)
    matte = warped_head[5]
    result = (warped_head + (warped_other - warped_head) * weight).clamp(0, 1).numpy()
    return Portrait(
        name=name,
        image=np.ascontiguousarray(result[:3].transpose(1, 2, 0)),
        lips=result[3],
        skin=result[4],
        matte=matte.numpy(),
        beard=result[6],
        points=target.astype(np.float32),
        still_clothes=True,
    )


def _align_points(points: Array, reference: npt.NDArray[np.float32]) -> Array:
    """Fit (478, 3) ``points`` to ``reference`` by a similarity transform in the image plane (least squares)."""
    source, target = (np.asarray(p[:468, :2], np.float64) for p in (points, reference))
    a, b = source - source.mean(0), target - target.mean(0)
    real, imaginary = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    matrix = np.array([[real, imaginary], [-imaginary, real]]) / (a**2).sum()
    result = points.copy()
    result[:, :2] = (points[:, :2] - source.mean(0)) @ matrix + target.mean(0)
    result[:, 2] *= float(np.sqrt(np.linalg.det(matrix)))
    return result


def _fixed_anchors(points: Array, size: int) -> Array:
    """(n, 2) points on border, hair and shoulders that the warp of the head's photograph keeps in place."""
    border = np.linspace(0, size - 1, 7)
    edge = [(x, y) for x in border for y in border if x in border[[0, -1]] or y in border[[0, -1]]]
    oval = points[list(FACE_OVAL), :2]
    middle, height = (oval.min(0) + oval.max(0)) / 2, np.ptp(oval[:, 1])
    hair = [middle + radius * (point - middle) for point in oval if point[1] < middle[1] for radius in (1.35, 1.7)]
    neck_rows = [oval[:, 1].max() + 0.45 * height, oval[:, 1].max() + 0.7 * height]
    shoulders = [(middle[0] + dx * height, y) for dx in (-0.5, 0.0, 0.5) for y in neck_rows]
    positions = np.array([*edge, *hair, *shoulders])
    return np.asarray(positions[((positions >= 0) & (positions <= size - 1)).all(1)])


def _planes(portrait: Portrait) -> Tensor:
    """(7, S, S): RGB image, lips, skin, matte, beard."""
    image = sharpen_portrait(portrait, torch.from_numpy(portrait.image).permute(2, 0, 1))
    masks = torch.from_numpy(np.stack([portrait.lips, portrait.skin, portrait.matte, portrait.beard]))
    return torch.cat([image, masks])


def _warp_planes(planes: Tensor, positions: Array, size: int) -> Tensor:
    """Sample ``planes`` (c, S, S) at ``positions`` (grid * grid, 2), upsampled to every pixel: (c, S, S)."""
    coarse = torch.from_numpy(positions.astype(np.float32)).reshape(1, _GRID, _GRID, 2).permute(0, 3, 1, 2)
    fine = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    where = fine * (2 / (size - 1)) - 1
    return F.grid_sample(planes[None], where, mode="bicubic", padding_mode="border", align_corners=True)[0].clamp(0, 1)


def _blend_weight(points: Array, grid: Array, blend: Blend) -> Array:
    """(n,) weight of the other portrait at every grid point, 0 outside the face."""
    oval = points[list(FACE_OVAL), :2]
    middle = (oval.min(0) + oval.max(0)) / 2
    around = oval - middle
    angles = np.arctan2(around[:, 1], around[:, 0])
    order = np.argsort(angles)
    from_middle = grid - middle
    radius = np.interp(
        np.arctan2(from_middle[:, 1], from_middle[:, 0]),
        angles[order],
        np.linalg.norm(around, axis=1)[order],
        period=2 * np.pi,
    )
    inside = 1 - smoothstep(np.linalg.norm(from_middle, axis=1) / radius, 0.78, 1.0)
    unit = float(np.linalg.norm(points[33, :2] - points[263, :2]))
    brows, eyes = points[[105, 334], 1].mean(), points[[33, 263], 1].mean()
    inside = inside * smoothstep(grid[:, 1], brows - 0.42 * unit, brows - 0.15 * unit)
    region = smoothstep(grid[:, 1], brows - 0.3 * unit, brows - 0.12 * unit)
    region = region * (1 - smoothstep(grid[:, 1], eyes + 0.36 * unit, eyes + 0.52 * unit))
    return np.asarray(inside * (blend.texture + (float(blend.other_eyes) - blend.texture) * region))


def _match_lighting(planes: Tensor, reference: Tensor) -> Tensor:
    """The image of ``planes`` with the coarse brightness and color of the skin in ``reference``: (3, S, S)."""
    light = []
    for image in (planes, reference):
        skin = image[4:5] * (1 - image[3:4])
        local = blur_image(F.avg_pool2d(torch.cat([image[:3] * skin, skin])[None], 8)[0], _LIGHT_SIGMA / 8)
        overall = (image[:3] * skin).sum((1, 2)) / skin.sum()
        mean = (local[:3] + 0.05 * overall[:, None, None]) / (local[3:] + 0.05)
        light.append(F.interpolate(mean[None], size=image.shape[-2:], mode="bicubic", align_corners=False)[0])
    gain = light[1] / light[0].clamp_min(0.05)
    # Off the skin, such as on the whites of the eyes, only the brightness is matched, not the color.
    grey_gain = gain.mean(0, keepdim=True)
    return (planes[:3] * (grey_gain + (gain - grey_gain) * planes[4:5])).clamp(0, 1)
