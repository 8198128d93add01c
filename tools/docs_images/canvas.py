"""A drawing surface in pixels: boxes whose text is checked to fit, arrows, and reproducible SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline

from latentsync.errors import ConfigError

Point = tuple[float, float]

# An opaque card reads the same on a light and on a dark page.
CARD, INK, MUTED, LINE = "#ffffff", "#1f2328", "#57606a", "#6e7781"
FILLS = {
    "blue": ("#ddf4ff", "#0969da"),
    "green": ("#dafbe1", "#1a7f37"),
    "yellow": ("#fff8c5", "#9a6700"),
    "orange": ("#fff1e5", "#bc4c00"),
    "purple": ("#fbefff", "#8250df"),
    "pink": ("#ffeff7", "#bf3989"),
    "grey": ("#f6f8fa", "#57606a"),
}
_DPI = 96
_LINE_HEIGHT = 1.35
STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "latentsync", "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, width and height in pixels, y pointing down."""

    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> Point:
        """The middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    def side(self, name: str, fraction: float = 0.5) -> Point:
        """A point on the "left", "right", "top" or "bottom" edge, ``fraction`` of the way along it."""
        if name in ("left", "right"):
            return self.x + (self.width if name == "right" else 0), self.y + self.height * fraction
        return self.x + self.width * fraction, self.y + (self.height if name == "bottom" else 0)


class Canvas:
    """A white card of ``width`` x ``height`` pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=CARD)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.set_axis_off()
        self._labels: list[tuple[Any, Box]] = []

    def text(self, at: Point, text: str, size: float = 12, **style: Any) -> Any:
        """Text of ``size`` pixels, centered at a point unless ``ha`` and ``va`` say otherwise."""
        given = {"ha": "center", "va": "center", "color": INK, "zorder": 5, **style}
        return self.axes.text(*at, text, fontsize=size * 72 / _DPI, linespacing=_LINE_HEIGHT, **given)

    def box(self, box: Box, title: str = "", lines: str = "", fill: str = "grey", **style: Any) -> Box:
        """A rounded box with a bold title above smaller lines; ``style`` goes to the outline."""
        face, edge = FILLS[fill]
        outline = {"facecolor": face, "edgecolor": edge, "linewidth": 1.2, "zorder": 3, **style}
        shape = f"round,pad=0,rounding_size={min(7.0, box.height / 3)}"
        self.axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, shape, **outline))
        x, y = box.center
        rows = len(lines.splitlines())
        shift = rows * 11 * _LINE_HEIGHT / 2
        if title:
            self._labels.append((self.text((x, y - shift), title, 13, weight="bold"), box))
        if lines:
            below = y + (13 * _LINE_HEIGHT / 2 if title else 0)
            self._labels.append((self.text((x, below), lines, 11), box))
        return box

    def band(self, box: Box) -> None:
        """A faint background that holds a row of boxes together."""
        shape = "round,pad=0,rounding_size=6"
        corner = (box.x, box.y)
        self.axes.add_patch(
            FancyBboxPatch(corner, box.width, box.height, shape, facecolor="#eef1f4", linewidth=0, zorder=0)
        )

    def arrow(self, points: Sequence[Point], color: str = LINE, **style: Any) -> None:
        """An arrow through the points, along straight lines."""
        self.curve(Outline(points), color, **style)

    def curve(self, outline: Outline, color: str = LINE, **style: Any) -> None:
        """An arrow along a path."""
        given = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.4, "zorder": 2, **style}
        self.axes.add_patch(FancyArrowPatch(path=outline, color=color, shrinkA=0, shrinkB=0, fill=True, **given))

    def save(self, path: Path) -> None:
        """Write the card as SVG or PNG, by the path's suffix.

        Raises:
            ConfigError: a text is wider or higher than its box.
        """
        with mpl.rc_context(STYLE):
            self._check_labels()
            metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            self.figure.savefig(path, dpi=2 * _DPI, metadata=metadata)

    def _check_labels(self) -> None:
        renderer = FigureCanvasAgg(self.figure).get_renderer()
        for label, box in self._labels:
            extent = label.get_window_extent(renderer)
            top, bottom = self.height - extent.y1, self.height - extent.y0
            inside = box.x + 3 <= extent.x0 and extent.x1 <= box.x + box.width - 3
            if not inside or top < box.y + 1 or bottom > box.y + box.height - 1:
                raise ConfigError(
                    f"{label.get_text()!r} takes {extent.width:.0f} x {extent.height:.0f} pixels and leaves its box of "
                    f"{box.width:.0f} x {box.height:.0f}; shorten it or enlarge the box"
                )
