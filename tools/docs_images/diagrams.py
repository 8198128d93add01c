"""Diagrams of how a video is made and how the networks are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentsync.pipelines.windows import Window, plan_windows
from latentsync.training.demo.step_graph import Step
from tools.docs_images.canvas import FILLS, LINE, MUTED, Box, Canvas, Point
from tools.make_demo_model import Recipe

_WINDOW_FILLS = ("blue", "orange", "green", "purple")
# Title, line below it, color, column and row.
_DEMO_STEPS = {
    "vae": ("VAE", "faces <-> latents", "green", 1, 0),
    "speech": ("speech", "text to speech", "grey", 0, 1),
    "audio": ("audio encoder", "speech -> features", "green", 1, 1),
    "corpus": ("corpus", "rendered heads", "grey", 0, 2),
    "syncnet": ("SyncNet", "lips against sound", "orange", 1, 3),
    "unet1": ("U-Net stage 1", "latent error", "blue", 2, 1),
    "unet2": ("U-Net stage 2", "+ SyncNet, pixels", "blue", 3, 1),
    "pack": ("pack", "half precision", "grey", 4, 1),
}


def draw_windows(out: Path, num_frames: int = 34, length: int = 16) -> None:
    """The windows of a short video and the weight of each window's result in every frame, from the real plan."""
    windows = list(plan_windows(num_frames, length, "blend"))
    left, cell, top, row = 122.0, 21.5, 46.0, 40
    chart_top = top + row * len(windows) + 22
    canvas = Canvas(880, int(chart_top) + 122)
    canvas.text((left - 12, 24), "output frame", 11, ha="right", color=MUTED)
    for frame in range(num_frames):
        canvas.text((left + cell * (frame + 0.5), 24), str(frame), 10.5, color=MUTED)
    for index, window in enumerate(windows):
        fill = _WINDOW_FILLS[index % len(_WINDOW_FILLS)]
        y = top + row * index
        canvas.text((left - 12, y + 14), f"window {index + 1}", 12, ha="right", weight="bold", color=FILLS[fill][1])
        _draw_window(canvas, window, (left, y), cell, fill)
    _draw_weights(canvas, windows, Box(left, chart_top, cell * num_frames, 70))
    note = "Hatched: computed only as context. Digits: weight of the window where two windows are cross-faded."
    canvas.text((left + cell * num_frames / 2, canvas.height - 16), note, 11, color=MUTED)
    canvas.save(out)


def _draw_window(canvas: Canvas, window: Window, origin: Point, cell: float, fill: str) -> None:
    for slot, frame in enumerate(window.indices):
        weight = window.fade_in(slot)
        box = Box(origin[0] + cell * frame + 1, origin[1], cell - 2, 28)
        hatch: dict[str, Any] = {"hatch": "////", "alpha": 0.45} if weight == 0 else {}
        canvas.box(box, fill=fill, **hatch)
        if 0 < weight < 1:
            canvas.text(box.center, f".{round(10 * weight)}", 11)


def _draw_weights(canvas: Canvas, windows: Sequence[Window], area: Box) -> None:
    """Lines of each window's weight over the frames; later windows take from earlier ones."""
    count = max(window.stop for window in windows)
    weights = [[0.0] * count for _ in windows]
    for index, window in enumerate(windows):
        for slot, frame in enumerate(window.indices):
            fade = window.fade_in(slot)
            for earlier in range(index):
                weights[earlier][frame] *= 1 - fade
            weights[index][frame] = fade
    canvas.text((area.x - 12, area.y), "1", 11, ha="right", color=MUTED)
    canvas.text((area.x - 12, area.y + area.height), "0", 11, ha="right", color=MUTED)
    canvas.text((area.x - 30, area.y + area.height / 2), "weight in\nthe result", 12, ha="right")
    cell = area.width / count
    for index, values in enumerate(weights):
        color = FILLS[_WINDOW_FILLS[index % len(_WINDOW_FILLS)]][1]
        used = [frame for frame in range(count) if any(values[max(frame - 1, 0) : frame + 2])]
        x = [area.x + cell * (frame + 0.5) for frame in used]
        y = [area.y + area.height * (1 - values[frame]) for frame in used]
        canvas.axes.plot(x, y, color=color, linewidth=2.2, marker="o", markersize=3.2, zorder=4)
    canvas.axes.plot([area.x, area.x + area.width], [area.y + area.height] * 2, color=LINE, linewidth=0.8, zorder=1)


def draw_pipeline(out: Path) -> None:
    """The stages of a run, the threads they run in, and the queues between them."""
    canvas = Canvas(880, 382)
    y, height = 96, 176
    threads = {
        "decode": Box(14, y, 122, height),
        "detect": Box(222, y, 138, height),
        "main": Box(446, y, 214, height),
        "encode": Box(746, y, 120, height),
    }
    names = {
        "decode": "thread: decode",
        "detect": "threads: search, detect",
        "main": "main thread + GPU",
        "encode": "thread: encode",
    }
    for name, box in threads.items():
        canvas.box(box, fill="grey", linestyle="--")
        canvas.text((box.center[0], box.y - 13), names[name], 11.5, color=MUTED)
    _stack(canvas, threads["decode"], {"read": "fixed frame rate", "timeline": "loop, hold, cut"}, "blue")
    _stack(
        canvas, threads["detect"], {"search": "find faces", "detect": "landmarks", "track": "select, smooth"}, "green"
    )
    _stack(
        canvas,
        threads["main"],
        {
            "align": "warp the face to R x R",
            "generate": "VAE, U-Net steps, VAE",
            "restore": "paste with a soft mask",
        },
        "orange",
    )
    _stack(canvas, threads["encode"], {"write": "encode once", "mux": "speech"}, "purple")
    order = list(threads.values())
    for before, after in zip(order, order[1:]):
        _queue(canvas, before.side("right"), after.side("left"))
    _draw_files(canvas, threads)
    note = "Queues are bounded: a full one blocks its producer. The slowest stage sets the speed, memory stays flat."
    canvas.text((440, canvas.height - 16), note, 11, color=MUTED)
    canvas.save(out)


def _draw_files(canvas: Canvas, threads: Mapping[str, Box]) -> None:
    """What goes in and comes out, and the speech's path to the generator."""
    video = canvas.box(Box(14, 14, 122, 34), "video", fill="yellow")
    result = canvas.box(Box(746, 14, 120, 34), "mp4 + JSON", fill="yellow")
    speech = canvas.box(Box(14, 302, 122, 34), "speech", fill="yellow")
    whisper = canvas.box(Box(446, 298, 214, 42), "Whisper encoder", "50 x d features per frame", "pink")
    canvas.arrow([video.side("bottom"), (video.center[0], threads["decode"].y - 24)])
    canvas.arrow([(result.center[0], threads["encode"].y - 24), result.side("bottom")])
    canvas.arrow([speech.side("right"), whisper.side("left")])
    canvas.arrow([whisper.side("top"), threads["main"].side("bottom")])
    canvas.arrow([speech.side("bottom"), (75, 347), (806, 347), threads["encode"].side("bottom")])


def _stack(canvas: Canvas, area: Box, entries: Mapping[str, str], fill: str) -> None:
    """Stages of a thread, one below the other."""
    step = area.height / len(entries)
    boxes = [
        canvas.box(Box(area.x + 7, area.y + step * row + 6, area.width - 14, step - 12), name, lines, fill)
        for row, (name, lines) in enumerate(entries.items())
    ]
    for before, after in zip(boxes, boxes[1:]):
        canvas.arrow([before.side("bottom"), after.side("top")])


def _queue(canvas: Canvas, start: Point, end: Point, cells: int = 4) -> None:
    """A bounded queue: four cells between two arrows."""
    side, y = 11, start[1]
    left = (start[0] + end[0] - side * cells) / 2
    canvas.arrow([start, (left, y)])
    for index in range(cells):
        canvas.box(Box(left + side * index, y - side, side, 2 * side), fill="yellow", linewidth=0.9)
    canvas.arrow([(left + side * cells, y), end])
    canvas.text(((start[0] + end[0]) / 2, y - 22), "queue", 11, color=MUTED)


def draw_training(out: Path) -> None:
    """Which network each training stage trains, and what it needs; the demo recipe's arrows are those of its steps."""
    canvas = Canvas(880, 484)
    canvas.text((14, 22), "Published recipe (stage1, stage2)", 13, ha="left", weight="bold")
    stage1 = "all but the motion modules;\nloss: predicted noise"
    stage2 = "motion modules, attention; loss:\nnoise + SyncNet, LPIPS, TREPA\nof the decoded frames"
    sync = canvas.box(Box(14, 44, 182, 60), "SyncNet", "lips against sound:\nin sync or shifted", "orange")
    first = canvas.box(Box(296, 44, 232, 60), "U-Net stage 1", stage1, "blue")
    second = canvas.box(
        Box(634, 44, 232, 76),
        "U-Net stage 2",
        stage2,
        "blue",
    )
    frozen = canvas.box(Box(296, 128, 232, 44), "VAE, Whisper", "frozen, downloaded", "grey")
    canvas.arrow([first.side("right"), (second.x, first.center[1])])
    canvas.arrow([frozen.side("top"), first.side("bottom")])
    canvas.arrow([frozen.side("right"), (second.side("bottom", 0.3)[0], frozen.center[1]), second.side("bottom", 0.3)])
    canvas.arrow([sync.side("bottom"), (105, 196), (750, 196), second.side("bottom")])
    canvas.text((584, 187), "frozen critic", 11, color=MUTED)
    canvas.axes.plot([14, 866], [224, 224], color=LINE, linewidth=0.8)
    canvas.text((14, 246), "Demo recipe (tools/make_demo_model.py), from random weights", 13, ha="left", weight="bold")
    steps = Recipe(Path("out"), (), 1, 1, None, Path("configs"), {}).steps()
    _draw_steps(canvas, steps, Box(14, 266, 852, 196))
    legend = "green: encoders    orange: SyncNet    blue: U-Net    grey: data and files"
    canvas.text((440, canvas.height - 13), legend, 11, color=MUTED)
    canvas.save(out)


def _draw_steps(canvas: Canvas, steps: Sequence[Step], area: Box) -> None:
    """Steps from left to right, each right of all that it needs."""
    places = {step.name: _DEMO_STEPS[step.name] for step in steps}
    pitch = area.width / (1 + max(column for *_, column, _ in places.values()))
    row_height, width = area.height / 4, 134.0
    boxes: dict[str, Box] = {}
    for name, (title, line, fill, column, row) in places.items():
        boxes[name] = Box(area.x + pitch * column + (pitch - width) / 2, area.y + row_height * row, width, 42)
        canvas.box(boxes[name], title, line, fill)
    for step in steps:
        needs = sorted(step.needs, key=lambda name: boxes[name].y)
        for index, name in enumerate(needs):
            start = boxes[name].side("right")
            end = boxes[step.name].side("left", (index + 1) / (len(needs) + 1))
            bend = end[0] - 22
            canvas.arrow([start, (bend, start[1]), (bend, end[1]), end])
