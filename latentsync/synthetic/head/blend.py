"""Faces between the portraits: one's head and hair, with a face whose shape and skin are mixed with the other's.

Both portraits have the same mesh points. Each picture is pulled by a thin-plate spline onto points between the two, and
within the face's outline the pulled pictures are mixed. Eyes with their brows (and spectacles) are never mixed: they
come from one portrait whole, because half-transparent frames would show what this is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from latentsync.synthetic.head.portrait import FACE_OVAL, Portrait, load_portrait, smoothstep
from latentsync.synthetic.head.spline import ThinPlateSpline
from latentsync.synthetic.head.texture import gaussian_blur, sharpened

Array = npt.NDArray[np.float64]

_GRID = 96
_LIGHT_SIGMA = 36.0  # pixels: what is coarser is taken for light and matched between the two


@dataclass(frozen=True)
class Blend:
    """How a face is mixed.

    Attributes:
        head: portrait of hair, clothes and neck; ``other``: the one that is mixed in.
        geometry: share of the other's shape, 0 to 1.
        texture: share of the other's skin, 0 to 1.
        other_eyes: whether eyes and brows are the other's.
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
    """A portrait, or a blend of two (``BLENDS``) by its name. Raises what ``load_portrait`` raises."""
    blend = BLENDS.get(name)
    if blend is None:
        return load_portrait(name, folder)
    return blended(name, load_portrait(blend.head, folder), load_portrait(blend.other, folder), blend)


def blended(name: str, head: Portrait, other: Portrait, blend: Blend) -> Portrait:
    """Mix two portraits of one size (about a second)."""
    size = head.size
    own, others = head.points.astype(np.float64), _aligned(other.points.astype(np.float64), head.points)
    target = own + blend.geometry * (others - own)
    ticks = np.linspace(0, size - 1, _GRID)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1).reshape(-1, 2)
    still = _still_places(target, size)
    from_head = ThinPlateSpline(np.concatenate([target[:, :2], still]), size, 1e-5)
    to_head = from_head(np.concatenate([own[:, :2] - target[:, :2], np.zeros_like(still)]), grid) + grid
    to_other = ThinPlateSpline(target[:, :2], size, 1e-5)(other.points[:, :2] - target[:, :2], grid) + grid
    pulled = _pull(_planes(head), to_head, size)
    mixed_in = _pull(_planes(other), to_other, size)
    weight = torch.from_numpy(_weight(target, grid, blend).astype(np.float32)).reshape(1, 1, _GRID, _GRID)
    weight = F.interpolate(weight, size=(size, size), mode="bicubic", align_corners=True)[0].clamp(0, 1)
    mixed_in[:3] = _in_the_light_of(mixed_in, pulled)
    matte = pulled[5]
    result = (pulled + (mixed_in - pulled) * weight).clamp(0, 1).numpy()
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


def _aligned(points: Array, reference: npt.NDArray[np.float32]) -> Array:
    """Turn, scale and shift (478, 3) ``points`` so that they lie on ``reference`` as well as they can."""
    source, wanted = (np.asarray(p[:468, :2], np.float64) for p in (points, reference))
    a, b = source - source.mean(0), wanted - wanted.mean(0)
    real, imaginary = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    matrix = np.array([[real, imaginary], [-imaginary, real]]) / (a**2).sum()
    result = points.copy()
    result[:, :2] = (points[:, :2] - source.mean(0)) @ matrix + wanted.mean(0)
    result[:, 2] *= float(np.sqrt(np.linalg.det(matrix)))
    return result


def _still_places(points: Array, size: int) -> Array:
    """(n, 2) border, hair and shoulders, which stay where the head's photograph has them."""
    border = np.linspace(0, size - 1, 7)
    edge = [(x, y) for x in border for y in border if x in border[[0, -1]] or y in border[[0, -1]]]
    oval = points[list(FACE_OVAL), :2]
    middle, height = (oval.min(0) + oval.max(0)) / 2, np.ptp(oval[:, 1])
    hair = [middle + reach * (point - middle) for point in oval if point[1] < middle[1] for reach in (1.35, 1.7)]
    neck = [oval[:, 1].max() + 0.45 * height, oval[:, 1].max() + 0.7 * height]
    shoulders = [(middle[0] + dx * height, y) for dx in (-0.5, 0.0, 0.5) for y in neck]
    positions = np.array([*edge, *hair, *shoulders])
    return np.asarray(positions[((positions >= 0) & (positions <= size - 1)).all(1)])


def _planes(portrait: Portrait) -> Tensor:
    """(7, S, S): picture, lips, skin, matte, beard."""
    image = sharpened(portrait, torch.from_numpy(portrait.image).permute(2, 0, 1))
    masks = torch.from_numpy(np.stack([portrait.lips, portrait.skin, portrait.matte, portrait.beard]))
    return torch.cat([image, masks])


def _pull(planes: Tensor, positions: Array, size: int) -> Tensor:
    """Look ``planes`` (c, S, S) up at ``positions`` (grid * grid, 2): (c, S, S)."""
    coarse = torch.from_numpy(positions.astype(np.float32)).reshape(1, _GRID, _GRID, 2).permute(0, 3, 1, 2)
    fine = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    where = fine * (2 / (size - 1)) - 1
    return F.grid_sample(planes[None], where, mode="bicubic", padding_mode="border", align_corners=True)[0].clamp(0, 1)


def _weight(points: Array, grid: Array, blend: Blend) -> Array:
    """(n,) share of the other's picture at every place: 0 outside the face."""
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


def _in_the_light_of(planes: Tensor, reference: Tensor) -> Tensor:
    """The picture of ``planes`` with the coarse brightness and colour of ``reference``'s skin: (3, S, S)."""
    light = []
    for image in (planes, reference):
        skin = image[4:5] * (1 - image[3:4])
        around = gaussian_blur(F.avg_pool2d(torch.cat([image[:3] * skin, skin])[None], 8)[0], _LIGHT_SIGMA / 8)
        overall = (image[:3] * skin).sum((1, 2)) / skin.sum()
        mean = (around[:3] + 0.05 * overall[:, None, None]) / (around[3:] + 0.05)
        light.append(F.interpolate(mean[None], size=image.shape[-2:], mode="bicubic", align_corners=False)[0])
    change = light[1] / light[0].clamp_min(0.05)
    # The whites of the eyes take part in the brightness, not in the colour of the skin.
    plain = change.mean(0, keepdim=True)
    return (planes[:3] * (plain + (change - plain) * planes[4:5])).clamp(0, 1)
