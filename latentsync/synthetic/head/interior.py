"""Procedural mouth interior: dark cavity, tongue, lower and upper teeth.

Coordinates are in mouth widths, u to the right and v down from the middle of the closed lip line, fixed to the skull
(upper teeth) or moving with the jaw (tongue, lower teeth).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from latentsync.synthetic.head.appearance import Color


@dataclass(frozen=True)
class InteriorLook:
    """Color and length of the teeth, and brightness of the light inside the mouth."""

    teeth: Color
    teeth_size: float
    brightness: Tensor


def mouth_interior(
    position: tuple[Tensor, Tensor], jaw: Tensor, tongue: Tensor, rounding: Tensor, look: InteriorLook
) -> Tensor:
    """Render the inside of the mouth.

    Args:
        position: u and v of every pixel on the skull, each (t, h, w), in mouth widths.
        jaw: (t,) displacement of the jaw, in mouth widths.
        tongue: (t,) 0 (low) to 1 (tip up).
        rounding: (t,) 0 to 1; protruding lips recede the teeth.
        look: colors, tooth length and brightness.

    Returns:
        (t, 3, h, w) float32 in [0, 1].
    """
    u, v = position
    jaw, tongue, rounding = (x[:, None, None] for x in (jaw, tongue, rounding))
    cavity = _color((0.22, 0.08, 0.08), u) * (0.35 + 0.9 * (v / 0.4).clamp(0, 1))[:, None]
    image = _over(cavity, *_tongue(u, v - jaw, tongue))
    image = _over(image, *_teeth(u, -(v - jaw) + 0.025 + 0.05 * rounding, look, is_upper=False))
    image = _over(image, *_teeth(u, v + 0.12 * rounding.clamp(0, 1), look, is_upper=True))
    # The lips cast a shadow right behind them, darkest in the corners and between rounded lips.
    corner = (1 - 0.75 * (u.abs() / 0.48).clamp(0, 1) ** 2.5) * (1 - 0.5 * rounding.clamp(0, 1))
    return image * (corner * look.brightness)[:, None]


def _color(color: Color, like: Tensor) -> Tensor:
    return torch.tensor(color, device=like.device, dtype=like.dtype)[None, :, None, None]


def _over(below: Tensor, color: Tensor, opacity: Tensor) -> Tensor:
    return below + (color - below) * opacity[:, None]


def _edge(distance: Tensor, softness: float) -> Tensor:
    return torch.sigmoid(distance / softness)


def _tongue(u: Tensor, v: Tensor, tongue: Tensor) -> tuple[Tensor, Tensor]:
    """A mound that rises from the floor of the mouth; its tip reaches the teeth when raised."""
    top = -0.19 - 0.15 * tongue + 0.9 * u * u * (1 - 0.4 * tongue)
    height = v - top
    shade = 0.5 + 0.5 * _edge(height - 0.06, 0.035) - 0.12 * torch.exp(-((u / 0.025) ** 2)) * (1 - tongue)
    return _color((0.66, 0.30, 0.31), u) * shade[:, None], _edge(height, 0.014)


def _teeth(u: Tensor, v: Tensor, look: InteriorLook, is_upper: bool) -> tuple[Tensor, Tensor]:
    """Color and opacity of a row of teeth whose free edge points toward increasing v."""
    extent, width, edge = (0.37, 0.128, 0.066) if is_upper else (0.29, 0.085, 0.055)
    # Perspective: teeth further from the middle are set back and appear narrower.
    across = torch.asin((u / (extent * 1.12)).clamp(-0.999, 0.999)) * extent * 1.12 / width
    gap = (across - across.round()).abs()
    length = edge * look.teeth_size - 0.25 * u * u
    rounded = length - 0.010 * (1 - (gap / 0.16).clamp(0, 1))
    line = 1 - 0.16 * torch.exp(-((gap / 0.06) ** 2))
    depth = 1 - 0.5 * (u.abs() / extent).clamp(0, 1) ** 2
    gum = 1 - 0.25 * ((0.0 - v) / 0.08).clamp(0, 1)
    shade = line * depth * gum * (1.05 if is_upper else 0.8)
    opacity = _edge(rounded - v, 0.006) * _edge(extent - u.abs(), 0.012)
    return _color(look.teeth, u) * shade[:, None], opacity
