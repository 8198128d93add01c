"""The package map: layers from pyproject.toml, arrows from the imports of the code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from textwrap import fill

import grimp
from importlinter import api as importlinter
from matplotlib.path import Path as Outline

from latentsync.errors import ConfigError
from tools.docs_images.canvas import CARD, MUTED, Box, Canvas, Point

PACKAGE = "latentsync"
PURPOSES = {
    "cli": "command lines",
    "api": "load a pipeline in Python",
    "diagnostics": "what this machine can run",
    "build": "configs -> objects",
    "pipelines": "one video, end to end",
    "training": "loop, tasks, demo recipe",
    "evaluation": "runs over data sets",
    "data": "clips -> training samples",
    "metrics": "sync and image quality",
    "synthetic": "rendered talking heads",
    "backends": "networks on a device",
    "models": "U-Net, VAE, SyncNet",
    "whisper": "speech -> features",
    "face": "detect, track, warp, paste",
    "diffusion": "noise schedule, solvers",
    "losses": "training losses",
    "media": "read and write video, audio",
    "checkpoints": "weights registry, download",
    "config": "typed YAML sections",
    "profiling": "stage times, traces",
    "runtime": "transfers, random state, workers",
    "errors": "what a user can act upon",
}
# Imported from many layers: they name their users instead of having arrows.
FOUNDATIONS = ("media", "checkpoints", "config", "profiling", "runtime", "errors")

_WIDTH, _ROW, _BOX_WIDTH, _BOX_HEIGHT, _TOP = 880, 86, 160, 48, 14
_FOUNDATION_HEIGHT = 96
_SLOTS = 3  # a package alone in its layer may stand left, right or in the middle
_LANE = 7
_COLORS = ("#0969da", "#1a7f37", "#bc4c00", "#8250df", "#bf3989", "#9a6700", "#0a7f80", "#57606a", "#cf222e", "#5c6f00")
_FILLS = ("blue", "green", "yellow", "orange", "purple", "pink")

Layers = list[list[str]]
Edges = dict[str, set[str]]


def read_layers(pyproject: Path) -> Layers:
    """The package names of each layer of the first import contract, top to bottom.

    Raises:
        ConfigError: the file holds no such contract.
    """
    try:
        contracts = importlinter.read_configuration(str(pyproject))["contracts_options"]
    except FileNotFoundError as error:
        raise ConfigError(f"{pyproject} is missing or has no [tool.importlinter] to draw the map from") from error
    layers = next((contract["layers"] for contract in contracts if contract.get("type") == "layers"), None)
    if layers is None:
        raise ConfigError(f"{pyproject} has no import contract of type 'layers'; the map is drawn from it")
    return [re.findall(r"\w+", layer) for layer in layers]


def read_imports() -> Edges:
    """Which packages each package imports, from the source of `latentsync`."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    edges: Edges = {}
    for module in graph.modules:
        own = _package(module)
        edges.setdefault(own, set()).update(map(_package, graph.find_modules_directly_imported_by(module)))
    # The root module and `python -m` entries are no packages.
    named = {name for name in edges if name.strip("_") == name and name}
    return {name: (edges[name] & named) - {name} for name in named}


def _package(module: str) -> str:
    """The package of a dotted module name; empty for the root."""
    return module.partition(".")[2].partition(".")[0]


def without_shortcuts(edges: Mapping[str, Collection[str]]) -> Edges:
    """The transitive reduction: imports that no chain of other imports implies, without those of `FOUNDATIONS`.

    edges: package -> imported packages, without a cycle.
    """
    kept = {name: set(targets).difference(FOUNDATIONS) for name, targets in edges.items() if name not in FOUNDATIONS}

    def reachable(name: str) -> set[str]:
        return {name}.union(*(reachable(target) for target in kept.get(name, ())))

    return {
        name: {
            target for target in targets if not any(target in reachable(other) for other in targets if other != target)
        }
        for name, targets in kept.items()
    }


def draw_architecture(pyproject: Path, out: Path) -> None:
    """Draw the map.

    Args:
        pyproject: file with the import contracts.
        out: .svg or .png to write.

    Raises:
        ConfigError: no layers, or a package that `PURPOSES` does not describe.
    """
    imports = read_imports()
    unknown = sorted(imports.keys() - PURPOSES.keys())
    if unknown:
        raise ConfigError(f"The map does not say what {', '.join(unknown)} is for; add a line to PURPOSES")
    layers = [[name for name in layer if name in imports] for layer in read_layers(pyproject)]
    upper = [layer for layer in layers if set(layer).difference(FOUNDATIONS)]
    edges = without_shortcuts(imports)
    floor = _TOP + len(upper) * _ROW
    canvas = Canvas(_WIDTH, floor + 2 * (_FOUNDATION_HEIGHT + 14) + 34)
    placed = [_place(layer, row) for row, layer in enumerate(_ordered(upper, edges))]
    for row, boxes in enumerate(placed):
        canvas.band(Box(4, _TOP + row * _ROW - 9, _WIDTH - 8, _BOX_HEIGHT + 18))
        for name, box in boxes.items():
            canvas.box(box, name, PURPOSES[name], _FILLS[row % len(_FILLS)])
    _draw_edges(canvas, edges, placed)
    _draw_foundations(canvas, imports, [name for layer in layers for name in layer if name in FOUNDATIONS], floor)
    note = "Arrows are imports; one that a chain of other arrows implies is left out. Grey packages name their users."
    canvas.text((_WIDTH / 2, canvas.height - 15), note, 11, color=MUTED)
    canvas.save(out)


def _draw_foundations(canvas: Canvas, imports: Edges, names: Sequence[str], top: float) -> None:
    """The lowest layers, four boxes to a row, each with the packages that import it."""
    for index, name in enumerate(names):
        row, column = divmod(index, 4)
        users = sorted(user for user, targets in imports.items() if name in targets)
        everyone = len(users) >= len(imports) - 4
        count = min(len(names) - 4 * row, 4)
        width = (_WIDTH - 8 - 9 * (count - 1)) / count
        used = "used by almost every package" if everyone else fill(f"used by {', '.join(users)}", int(width / 6.3))
        box = Box(4 + column * (width + 9), top + row * (_FOUNDATION_HEIGHT + 9), width, _FOUNDATION_HEIGHT)
        canvas.box(box, name, f"{PURPOSES[name]}\n{used}", "grey")


def _place(layer: Sequence[str], row: int) -> dict[str, Box]:
    """Boxes of a row, spread evenly over its slots; an empty name leaves its slot empty."""
    step, top = (_WIDTH - 20) / len(layer), _TOP + row * _ROW
    return {
        name: Box(10 + step * (column + 0.5) - _BOX_WIDTH / 2, top, _BOX_WIDTH, _BOX_HEIGHT)
        for column, name in enumerate(layer)
        if name
    }


def _ordered(layers: Layers, edges: Edges) -> Layers:
    """The layers with the packages of each in the order that keeps arrows short; a few sweeps settle it."""
    best = [[*layer, *[""] * (_SLOTS - 1)] if len(layer) == 1 else list(layer) for layer in layers]
    for _ in range(4):
        for row, layer in enumerate(best):
            around = best[:row] + best[row + 1 :]
            where = {name: position for other in around for name, position in _positions(other).items()}

            def length(order: tuple[str, ...], where: Mapping[str, float] = where) -> float:
                spots = {**where, **_positions(order)}
                return sum((spots[name] - spots[target]) ** 2 for name in edges for target in edges[name])

            shortest: tuple[str, ...] = min(permutations(sorted(layer)), key=length)
            best[row] = list(shortest)
    return best


def _positions(layer: Sequence[str]) -> dict[str, float]:
    return {name: (column + 0.5) / len(layer) for column, name in enumerate(layer) if name}


def _draw_edges(canvas: Canvas, edges: Edges, placed: Sequence[Mapping[str, Box]]) -> None:
    """Curves from box to box, through the gaps of the rows between."""
    boxes = {name: box for row in placed for name, box in row.items()}
    rows = {name: row for row, names in enumerate(placed) for name in names}
    colors = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(boxes)}
    pairs = sorted((name, target) for name in edges for target in edges[name])
    gaps = Gaps(placed)
    for source, target in sorted(pairs, key=lambda pair: rows[pair[1]] - rows[pair[0]]):
        targets = sorted((t for s, t in pairs if s == source), key=lambda name: (boxes[name].x, -rows[name]))
        sources = sorted((s for s, t in pairs if t == target), key=lambda name: (boxes[name].x, rows[name]))
        start = boxes[source].side("bottom", _spread(targets.index(target), len(targets)))
        end = boxes[target].side("top", _spread(sources.index(source), len(sources)))
        stops = []
        for row in range(rows[source] + 1, rows[target]):
            x = gaps.take(row, start[0] + (end[0] - start[0]) * (row - rows[source]) / (rows[target] - rows[source]))
            stops.append(((x, _TOP + row * _ROW - 6), (x, _TOP + row * _ROW + _BOX_HEIGHT + 6)))
        outline = _curve(start, stops, end)
        canvas.curve(outline, CARD, linewidth=4.5, arrowstyle="-", zorder=1.9)
        canvas.curve(outline, colors[source])


def _spread(index: int, count: int) -> float:
    return 0.5 if count == 1 else 0.15 + 0.7 * index / (count - 1)


class Gaps:
    """Where arrows can pass between the boxes of each row."""

    def __init__(self, placed: Sequence[Mapping[str, Box]]) -> None:
        self._taken = [[(box.x - _LANE, box.x + box.width + _LANE) for box in boxes.values()] for boxes in placed]

    def take(self, row: int, wanted: float) -> float:
        """The free x of a row nearest to the wanted one; it is not free afterwards."""
        taken = self._taken[row]
        candidates = [wanted] + [edge for span in taken for edge in span]
        free = [x for x in candidates if 4 <= x <= _WIDTH - 4 and not any(low < x < high for low, high in taken)]
        x = min(free, key=lambda each: (abs(each - wanted), each))
        taken.append((x - _LANE, x + _LANE))
        return x


def _curve(start: Point, stops: Sequence[tuple[Point, Point]], end: Point) -> Outline:
    """Through every row straight down, between rows an S."""
    points, codes = [start], [Outline.MOVETO]
    here = start
    for upper, lower in [*stops, (end, end)]:
        middle = (here[1] + upper[1]) / 2
        points += [(here[0], middle), (upper[0], middle), upper]
        codes += [Outline.CURVE4] * 3
        if lower != upper:
            points.append(lower)
            codes.append(Outline.LINETO)
        here = lower
    return Outline(points, codes)
