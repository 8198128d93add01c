"""Speed against quality: the measured rows of docs/speed.md, with the network calls weighted by measured times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latentsync.errors import ConfigError
from tools.docs_images.canvas import INK, STYLE

_CALL = re.compile(r"(\d+) (full|shallow)( guided)?")
_NAMED = {"exact": "#0969da", "fast": "#1a7f37", "realtime": "#bc4c00"}
_COLORS = ("#8250df", "#bf3989", "#9a6700", "#0a7f80", "#cf222e", "#1f2328", "#57606a")
_MARKERS = "sD^vPX*"


@dataclass(frozen=True)
class SpeedRow:
    """A measured way of sampling.

    Attributes:
        name: as in the table.
        calls: (kind, guided) -> calls of the network per window; the kind is "full" or "shallow".
        psnr: dB against the first row; None for that row itself.
        sync_conf: confidence of the SyncNet.
    """

    name: str
    calls: dict[tuple[str, bool], int]
    psnr: float | None
    sync_conf: float

    def milliseconds(self, times: dict[tuple[str, bool], float]) -> float:
        """Time of the network per window, from the time of each kind of call."""
        return sum(count * times[kind] for kind, count in self.calls.items())


def read_tables(page: Path) -> list[list[dict[str, str]]]:
    """The tables of a Markdown page: rows as column -> cell."""
    tables: list[list[dict[str, str]]] = []
    header: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
            tables.append([])
        elif not set(line) <= set("|-: "):
            tables[-1].append(dict(zip(header, cells)))
    return tables


def read_speeds(page: Path) -> list[SpeedRow]:
    """The rows measured with 20 guided steps.

    Raises:
        ConfigError: the page has no such table.
    """
    for table in read_tables(page):
        if table and {"steps", "PSNR", "sync_conf"} <= {name.strip("`") for name in table[0]}:
            rows = [{name.strip("`"): cell for name, cell in row.items()} for row in table]
            if rows[0]["steps"] == "20":
                return [_speed_row(row) for row in rows]
    raise ConfigError(f"{page} has no table with the columns steps, PSNR and sync_conf whose first row takes 20 steps")


def _speed_row(row: dict[str, str]) -> SpeedRow:
    calls = {(kind, bool(guided)): int(count) for count, kind, guided in _CALL.findall(" ".join(row.values()))}
    psnr = re.match(r"[\d.]+", row["PSNR"])
    return SpeedRow(next(iter(row.values())), calls, float(psnr[0]) if psnr else None, float(row["sync_conf"]))


def read_call_times(page: Path) -> dict[tuple[str, bool], float]:
    """Milliseconds of each kind of call, as `tools.benchmark_networks` measured them on one GPU.

    Raises:
        ConfigError: the page does not tell all four.
    """
    times: dict[tuple[str, bool], float] = {}
    for table in read_tables(page):
        for row in table:
            call = row.get("call", "")
            if call.startswith("U-Net"):
                kind = "shallow" if "reused" in call else "full"
                times[kind, "guided" in call] = float(row["H100, ms"])
    if len(times) != 4:
        raise ConfigError(f"{page} tells the time of {len(times)} kinds of U-Net calls; expected 4")
    return times


def draw_speed(pages: Path, out: Path) -> None:
    """Two panels over the U-Net's time per window: PSNR against the exact result, and SyncNet confidence.

    pages: folder with speed.md and benchmarks.md.
    """
    rows, times = read_speeds(pages / "speed.md"), read_call_times(pages / "benchmarks.md")
    with mpl.rc_context(STYLE):
        figure: Figure = Figure(figsize=(880 / 96, 640 / 96), facecolor="white", layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        exact = rows[0].milliseconds(times)
        upper.axvline(exact, color=_NAMED["exact"], linestyle="--", linewidth=1.2)
        upper.text(exact - 12, 40.45, "exact is the reference", ha="right", fontsize=10.5, color=_NAMED["exact"])
        for index, row in enumerate(rows):
            _mark((upper, lower), row, row.milliseconds(times), index)
        upper.set_ylabel("mouth PSNR against exact, dB", fontsize=10.5)
        lower.set_ylabel("SyncNet confidence", fontsize=10.5)
        lower.set_xlabel("U-Net time per window of 16 frames, ms", fontsize=10.5)
        upper.set_ylim(40.2, 43.8)
        lower.set_ylim(0.8, 0.85)
        lower.set_xlim(0, exact * 1.08)
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *lower.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=10
        )
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else {}, dpi=192)


def _mark(panels: tuple[Axes, Axes], row: SpeedRow, x: float, index: int) -> None:
    """A point in each panel; the named speeds are round, large and carry their names."""
    named = row.name in _NAMED
    color = _NAMED.get(row.name, _COLORS[index % len(_COLORS)])
    marker = "o" if named else _MARKERS[index % len(_MARKERS)]
    for axes, value in zip(panels, (row.psnr, row.sync_conf)):
        if value is None:
            continue
        size = 110 if named else 60
        axes.scatter([x], [value], s=size, color=color, marker=marker, alpha=0.85, label=row.name, zorder=3)
        if named:
            axes.annotate(row.name, (x, value), (9, 6), "data", "offset points", weight="bold", fontsize=11, color=INK)
