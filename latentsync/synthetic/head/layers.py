"""Composite the layers of a head: background, mouth interior, lower face, upper face, eyes.

The lower layer covers everything below the lip line, the upper layer everything above it; the mouth interior shows
where neither is opaque. Each layer is computed only in the box of the output where it can be visible.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentsync.synthetic.head.appearance import Identity
from latentsync.synthetic.head.fields import FACE_MODES, LOWER, OPEN_SHIFT, STILL, UPPER
from latentsync.synthetic.head.interior import InteriorLook, mouth_interior
from latentsync.synthetic.head.lattice import Lattice, LatticeBox, sample_image
from latentsync.synthetic.head.portrait import EYE_LOWER, EYE_UPPER, INNER_LOWER, INNER_UPPER, Portrait
from latentsync.synthetic.head.texture import PortraitTensors, inpaint_mouth

_ITERATIONS = {STILL: 5, UPPER: 8, LOWER: 8}
_MARGIN = 0.12  # mouth widths around the lips within which the mouth interior is rendered

_TRACE = 0.004  # opacity that is invisible in an 8-bit image


@dataclass(frozen=True)
class LayerTextures:
    """The textures of one person in one scene.

    Attributes:
        texture: (3, S, S) the lit face, sampled for the eyes.
        above, below: (5, S, S) the face with its mouth opening inpainted, the matte and the opacity of the layer.
        background: (3, S, S).
        eyes: (1, S, S) opacity of the eyes.
        look: appearance of the mouth interior.
    """

    texture: Tensor
    above: Tensor
    below: Tensor
    background: Tensor
    eyes: Tensor
    look: InteriorLook


def prepare_textures(
    tensors: PortraitTensors, texture: Tensor, background: Tensor, identity: Identity
) -> LayerTextures:
    """Assemble the textures that `composite_layers` samples."""
    above, below = inpaint_mouth(tensors, texture)
    matte = tensors.regions["matte"][None]
    opaque_above, opaque_below, eyes = tensors.layers.split(1)
    skin = tensors.regions["skin"]
    brightness = (1.7 * (texture.mean(0) * skin).sum() / skin.sum()).clamp(0.5, 1.1)
    return LayerTextures(
        texture=texture,
        above=torch.cat([above, matte, opaque_above]),
        below=torch.cat([below, matte, opaque_below]),
        background=background,
        eyes=eyes.contiguous(),
        look=InteriorLook(identity.teeth, identity.teeth_size, brightness),
    )


def composite_layers(
    portrait: Portrait, textures: LayerTextures, lattice: Lattice, shifts: Tensor, coefficients: Tensor
) -> Tensor:
    """Render frames.

    Args:
        portrait: the base face, which locates mouth and eyes.
        textures: its textures.
        lattice: lattice of the output.
        shifts: (t, 3, 2, G, G) displacement fields of the layers in portrait pixels.
        coefficients: (t, K) coefficients of the modes; jaw, tongue and lips control the mouth interior.

    Returns:
        (t, 3, size, size) float32 in [0, 1].
    """
    positions = [lattice.invert(shifts[:, layer], _ITERATIONS[layer]) for layer in (STILL, UPPER, LOWER)]
    boxes = _visible_boxes(portrait, lattice, positions, sample_image(textures.above[4:], positions[UPPER])[:, 0])
    upper_box, lower_box = boxes.upper, boxes.lower
    upper = sample_image(textures.above, lattice.pixels(positions[UPPER], upper_box))
    lower = sample_image(textures.below, lattice.pixels(positions[LOWER], lower_box))
    if (box := boxes.eyes) is not None:
        region = upper[(..., *box.slices_within(upper_box))]
        opacity = sample_image(textures.eyes, lattice.pixels(positions[UPPER], box))
        region[:, :3].lerp_(sample_image(textures.texture, lattice.pixels(positions[STILL], box)), opacity)
    if (box := boxes.mouth) is not None:
        region = lower[(..., *box.slices_within(lower_box))]
        pixels = (lattice.pixels(positions[STILL], box) + 1) * ((portrait.size - 1) / 2)
        _composite_mouth_interior(region, _mouth_coordinates(portrait, pixels), coefficients, textures.look)
    start, stop = lower_box.rows.start, upper_box.rows.stop
    between = lower[:, :4, : stop - start].lerp(upper[:, :4, start:], upper[:, 4:, start:])
    face = torch.cat([upper[:, :4, :start], between, lower[:, :4, stop - start :]], dim=2)
    frames = sample_image(textures.background, lattice.pixels(lattice.frame, lattice.full_box))
    return frames.lerp_(face[:, :3], face[:, 3:])


@dataclass(frozen=True)
class _VisibleBoxes:
    """The boxes of the output in which each layer can be visible; eyes lie in ``upper``, the mouth in ``lower``."""

    upper: LatticeBox
    lower: LatticeBox
    eyes: LatticeBox | None
    mouth: LatticeBox | None


def _visible_boxes(portrait: Portrait, lattice: Lattice, positions: list[Tensor], cover: Tensor) -> _VisibleBoxes:
    """Boxes for the sampling ``positions`` of the layers; ``cover`` (t, n, n) is the opacity of the upper layer."""
    marks = torch.stack(
        [
            cover < 1 - _TRACE,
            cover > _TRACE,
            _near_eyes(portrait, positions[UPPER]),
            _near_mouth(portrait, positions[UPPER], positions[LOWER]),
        ]
    )
    # A single transfer for all masks: many processes may share a GPU, and each synchronization is queued behind them.
    rows, columns = torch.stack([marks.any(3).any(1), marks.any(2).any(1)]).cpu().numpy()
    last = lattice.count - 1
    not_upper, not_lower = (np.flatnonzero(row) for row in rows[:2])
    top = max(0, int(not_upper[0]) - 1) if len(not_upper) else last
    bottom = min(last, int(not_lower[-1]) + 1) if len(not_lower) else 0
    upper, lower = lattice.rows(0, max(top, bottom)), lattice.rows(top, last)
    eyes, mouth = (lattice.bounding_box(rows[mask], columns[mask]) for mask in (2, 3))
    return _VisibleBoxes(upper, lower, eyes and eyes.intersect(upper), mouth and mouth.intersect(lower))


def _near_eyes(portrait: Portrait, positions: Tensor) -> Tensor:
    """(t, n, n) bool: nodes between or close to the eyelids."""
    corners = portrait.points[[index for group in (*EYE_UPPER, *EYE_LOWER) for index in group], :2]
    low, high = (
        (corner * (2 / (portrait.size - 1)) - 1).tolist() for corner in (corners.min(0) - 4, corners.max(0) + 4)
    )
    x, y = positions.unbind(-1)
    return (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])


def _near_mouth(portrait: Portrait, upper: Tensor, lower: Tensor) -> Tensor:
    """(t, n, n) bool: nodes where possibly neither layer is opaque."""
    scale = (portrait.size - 1) / 2
    above, below = (_mouth_coordinates(portrait, (position + 1) * scale) for position in (upper, lower))
    columns = np.linspace(-0.5, 0.5, 21, dtype=np.float32)
    highest = float(portrait.lip_line(INNER_UPPER, columns, 0.0).min()) - _MARGIN
    lowest = float(portrait.lip_line(INNER_LOWER, columns, 0.0).max()) + _MARGIN
    return (below[:, 0].abs() < 0.8) & (above[:, 1] > highest) & (below[:, 1] < lowest)


def _mouth_coordinates(portrait: Portrait, pixels: Tensor) -> Tensor:
    """(t, h, w, 2) portrait pixels -> (t, 2, h, w) along and across the mouth, in mouth widths around its center."""
    center = torch.from_numpy(portrait.mouth_center).to(pixels)
    axes = torch.from_numpy(np.stack(portrait.mouth_axis)).to(pixels) / portrait.mouth_width
    return torch.einsum("ac,thwc->athw", axes, pixels - center).transpose(0, 1)


def _composite_mouth_interior(lower: Tensor, position: Tensor, coefficients: Tensor, look: InteriorLook) -> None:
    """Composite the mouth interior under the lower layer (t, 5, h, w), in place."""
    opening, tongue, rounding = (coefficients[:, FACE_MODES.index(name)] for name in ("open", "tongue", "rounding"))
    interior = mouth_interior((position[:, 0], position[:, 1]), opening * OPEN_SHIFT, tongue, rounding, look)
    # Closed lips must not show a gap, even where the edges of the two layers do not meet exactly.
    closed = (1 - opening / 0.04).clamp(0, 1)[:, None, None, None]
    lower[:, :3].lerp_(interior, 1 - torch.maximum(lower[:, 4:5], closed))
