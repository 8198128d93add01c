"""Generate a corpus of synthetic talking heads: many scenes, rendered by a pool of worker processes."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from latentsync.errors import ConfigError
from latentsync.runtime.worker_pool import run_in_processes
from latentsync.synthetic.head.renderer import HeadRenderer
from latentsync.synthetic.scene_writer import is_complete, make_scene_script, take_names, write_scene

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
REPORT = "corpus.json"
# Options that all clips of a corpus have in common; a folder started with other values is not continued.
_FIXED = ("resolution", "seconds", "seed", "whole_frames")


@dataclass(frozen=True)
class CorpusOptions:
    """Size, format and location of a corpus.

    Attributes:
        out: folder of the corpus; scenes that are already complete are kept.
        scenes: number of training scenes, each with two takes.
        val_scenes: number of validation scenes, with people, words and voices that training does not contain.
        resolution: side R of the aligned crops in pixels, even.
        seconds: duration of a clip.
        seed: random seed of the whole corpus.
        workers: number of processes; 0 uses all cores, 1 renders in this process.
        devices: devices to render on, such as ("cuda:0", "cuda:1"); scenes are assigned to them in turn.
        whole_frames: side in pixels of the full frames written in addition to the crops; None writes none.
    """

    out: Path
    scenes: int
    val_scenes: int = 0
    resolution: int = 256
    seconds: float = 3.2
    seed: int = 0
    workers: int = 0
    devices: tuple[str, ...] = ("cpu",)
    whole_frames: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError on a value out of range."""
        if self.scenes < 0 or self.val_scenes < 0 or self.scenes + self.val_scenes == 0:
            raise ConfigError(
                f"Cannot generate {self.scenes} training and {self.val_scenes} validation scenes; expected "
                "non-negative numbers and at least one scene in total."
            )
        for name, side in (("resolution", self.resolution), ("whole_frames", self.whole_frames)):
            if side is not None and (side < 32 or side % 2):
                raise ConfigError(f"{name} must be even and at least 32, got {side}.")
        if not 0.2 <= self.seconds <= 60 or self.workers < 0 or not self.devices:
            raise ConfigError(
                f"Got {self.seconds} seconds, {self.workers} workers and devices {self.devices}; expected 0.2 to 60 "
                "seconds, 0 or more workers and at least one device."
            )

    @property
    def num_workers(self) -> int:
        """Number of processes to start, at most one per scene."""
        return min(self.workers or len(os.sched_getaffinity(0)), self.scenes + self.val_scenes)

    @property
    def scene_jobs(self) -> list[tuple[str, int]]:
        """(split, number) of every scene, validation first."""
        counts = {"val": self.val_scenes, "train": self.scenes}
        return [(split, number) for split, count in counts.items() for number in range(count)]


def make_corpus(options: CorpusOptions, on_scene: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Generate the scenes of a corpus that are missing.

    Args:
        options: see `CorpusOptions`. More than one worker spawns processes, so a script that calls this needs an
            ``if __name__ == "__main__":`` guard.
        on_scene: called with (finished scenes, requested scenes) at the start and after every scene.

    Returns:
        The report, which is also written to ``out/corpus.json``: ``options``; by split, ``scenes``, ``clips``,
        ``seconds`` of video, and the number of clips for each of ``voices``, ``languages`` and base ``portraits``;
        ``rendered_scenes`` and ``elapsed_seconds`` of this call; ``complete``.

    Raises:
        ConfigError: the folder holds a corpus generated with other options.
        DependencyError: espeakng-loader is missing.
        MediaError: a file cannot be written.
    """
    started = time.monotonic()
    _check_folder(options)
    for split in SPLITS:
        (options.out / split).mkdir(parents=True, exist_ok=True)
    scene_jobs = options.scene_jobs
    missing = [job for job in scene_jobs if not is_complete(options.out, *job, options.whole_frames is not None)]
    _write_report(options, {"options": _option_values(options), "complete": False})
    done = len(scene_jobs) - len(missing)
    if on_scene:
        on_scene(done, len(scene_jobs))
    for _ in _render_scenes(options, missing):
        done += 1
        if on_scene:
            on_scene(done, len(scene_jobs))
    unfinished = options.out / ".unfinished"
    if unfinished.is_dir() and not any(unfinished.iterdir()):
        unfinished.rmdir()
    report = {"options": _option_values(options), "complete": True} | {
        split: _count(options.out / split) for split in SPLITS
    }
    report |= {"rendered_scenes": len(missing), "elapsed_seconds": round(time.monotonic() - started, 1)}
    _write_report(options, report)
    logger.info("corpus %s: rendered %d of %d scenes", options.out, len(missing), len(scene_jobs))
    return report


def _option_values(options: CorpusOptions) -> dict[str, Any]:
    """The options that determine the clips, as stored in the report."""
    return {name: value for name, value in asdict(options).items() if name not in ("out", "workers", "devices")}


def _check_folder(options: CorpusOptions) -> None:
    path = options.out / REPORT
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))["options"]
    differing = {name: before.get(name) for name in _FIXED if before.get(name) != _option_values(options)[name]}
    if differing:
        raise ConfigError(
            f"{str(options.out)!r} holds a corpus generated with {differing}; give the same options to continue it, "
            "or another folder."
        )


def _write_report(options: CorpusOptions, report: dict[str, Any]) -> None:
    path = options.out / REPORT
    partial = path.with_name(f".{REPORT}.partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _count(folder: Path) -> dict[str, Any]:
    """Statistics of the clips of one split, from their sidecars."""
    counts: dict[str, dict[str, int]] = {"voices": {}, "languages": {}, "portraits": {}}
    clips = sorted(folder.glob("*.json"))
    seconds = 0.0
    for path in clips:
        truth = json.loads(path.read_text(encoding="utf-8"))
        seconds += len(truth["mouth"]) / float(truth["fps"])
        voice, portrait = truth["voice"], truth["identity"]["portrait"]
        labels = {"voices": voice, "languages": voice.split("+")[0], "portraits": portrait}
        for kind, label in labels.items():
            counts[kind][label] = counts[kind].get(label, 0) + 1
    sizes = {
        "scenes": len(clips) // 2,
        "clips": len(clips),
        "identities": len(clips) // 2,
        "seconds": round(seconds, 2),
    }
    return sizes | {kind: dict(sorted(histogram.items())) for kind, histogram in counts.items()}


def _render_scenes(options: CorpusOptions, jobs: list[tuple[str, int]]) -> Iterator[str]:
    """Render the scenes ``jobs``; yields the name of each one when it is finished."""
    arguments = [
        (options, split, number, options.devices[index % len(options.devices)])
        for index, (split, number) in enumerate(jobs)
    ]
    yield from run_in_processes(_render_scene, arguments, options.num_workers)


@cache
def _renderer(device: str) -> HeadRenderer:
    return HeadRenderer(device)


def _render_scene(options: CorpusOptions, split: str, number: int, device: str) -> str:
    script = make_scene_script(options.seed, split, number, options.seconds)
    write_scene(script, options.out, _renderer(device), (options.resolution, options.whole_frames))
    return take_names(number)[0]
