"""Command line of the benchmark: speed of a model from file to file, and comparison with an earlier measurement."""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli.inference import inference_parser, prepare_benchmark, run_command
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.media.output_file import atomic_output, check_output

if TYPE_CHECKING:
    import torch

    from latentsync.pipelines.job import LipsyncResult

logger = logging.getLogger(__name__)

_MIN_STAGE_FRACTION = 0.02  # of the total time; rates of shorter stages are too noisy to compare


class RegressionError(LatentSyncError):
    """A rate fell, or the video differs."""


@dataclass(frozen=True)
class Limits:
    """Limits of a comparison.

    Attributes:
        tolerance: fraction by which a rate may fall.
        min_psnr: dB that every frame must reach against the earlier video.
    """

    tolerance: float = 0.1
    min_psnr: float = 40.0


def run_benchmark(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; returns the exit code, 1 also after a regression."""
    options = benchmark_parser().parse_args(arguments)
    return run_command(options, partial(_run, options))


def benchmark_parser() -> argparse.ArgumentParser:
    """Every option of inference, and the benchmark's own."""
    parser = inference_parser()
    parser.description = (
        "Measure speed from file to file: one run to warm up, then --repeats runs, of which medians are reported. "
        "Without paths the bundled clip is used. --compare fails where a rate fell by more than --tolerance or the "
        "video differs."
    )
    add = parser.add_argument_group("how to measure").add_argument
    add("--repeats", type=int, default=3, metavar="N", help="timed runs (%(default)s)")
    add("--out", type=Path, help="file for the metrics (.json); the video is stored beside it")
    add("--compare", type=Path, help="metrics of an earlier --out")
    add("--tolerance", type=float, default=0.1, help="fraction by which a rate may fall (%(default)s)")
    add("--min_psnr", type=float, default=40.0, help="dB of every frame against the earlier video (%(default)s)")
    return parser


def _run(options: argparse.Namespace) -> int:
    _check(options)
    base = _read(options.compare) if options.compare else None
    with tempfile.TemporaryDirectory(prefix="latentsync_benchmark_") as folder:
        report, video = measure(options, options.repeats, Path(folder))
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        limits = Limits(options.tolerance, options.min_psnr)
        # Compared before anything is stored, which may replace the earlier video.
        worse = None if base is None else compare(report, base, video, options.compare.with_suffix(".mp4"), limits)
        if options.out:
            _save(report, video, options.out, options.overwrite)
        if worse is not None:
            _raise_on_regression(worse)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.repeats < 1 or not 0 <= options.tolerance < 1:
        raise ConfigError(
            f"--repeats {options.repeats} --tolerance {options.tolerance}: expected 1 or more, and 0 to below 1"
        )
    if options.video_out_path:
        raise ConfigError(f"--video_out_path {options.video_out_path}: the video is saved beside --out; give --out")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        check_output(options.out.with_suffix(".mp4"), overwrite=options.overwrite)
        if options.out.exists() and not options.overwrite:
            raise ConfigError(f"--out {options.out} exists already; give another name, or --overwrite")


def measure(options: argparse.Namespace, repeats: int, folder: Path) -> tuple[dict[str, Any], Path]:
    """Run once to warm up and ``repeats`` times; returns the metrics and the last video, which is in ``folder``."""
    from latentsync.profiling.machine import reset_peak_memory  # with torch, as everything below

    pipeline, job = prepare_benchmark(options, folder / "warm_up.mp4")
    reset_peak_memory(pipeline.device)
    pipeline(job)
    results = []
    for number in range(1, repeats + 1):
        results.append(pipeline(replace(job, video_out_path=folder / f"run_{number}.mp4")))
        logger.info("run %d of %d: %.2f frames/s", number, repeats, results[-1].frames_per_second)
    return _report(pipeline.device, results), results[-1].video_out_path


def _report(device: torch.device, results: Sequence[LipsyncResult]) -> dict[str, Any]:
    from latentsync.profiling.machine import machine_info, peak_memory

    frames = results[0].num_frames
    seconds = statistics.median(result.total_seconds for result in results)
    stages = {
        name: statistics.median(each.stage_seconds[name] for each in results) for name in results[0].stage_seconds
    }
    return {
        "machine": machine_info(device),
        "settings": {key: str(value) for key, value in results[-1].settings.items() if not key.endswith("_path")},
        "frame_size": [results[0].width, results[0].height],
        "frames": frames,
        "seconds": seconds,
        "frames_per_second": round(frames / seconds, 3),
        "first_frame_seconds": statistics.median(result.first_frame_seconds for result in results),
        "all_frames_per_second": [round(result.frames_per_second, 3) for result in results],
        "stages": {
            name: {
                "seconds": value,
                "fraction": round(value / seconds, 3),
                "frames_per_second": round(frames / value, 3) if value else None,
            }
            for name, value in sorted(stages.items(), key=lambda item: -item[1])
        },
        "peak_mib": peak_memory(device),
    }


def compare(
    report: Mapping[str, Any], base: Mapping[str, Any], video: Path, base_video: Path, limits: Limits
) -> list[str]:
    """One line per regression; none if there is none.

    Raises:
        ConfigError: the earlier report is of a different run.
    """
    for key in ("frames", "frame_size"):
        if report[key] != base[key]:
            raise ConfigError(
                f"The earlier report is of a different run: {key} {base[key]}, now {report[key]}; give the same "
                "options to both"
            )
    regressions = [
        f"{name}: {now:.3g} frames/s, {before:.3g} before"
        for name, now, before in _rates(report, base)
        if now < before * (1 - limits.tolerance)
    ]
    lowest = min(_frame_psnr(video, base_video))
    if lowest < limits.min_psnr:
        regressions.append(
            f"the video differs: the PSNR of a frame is {lowest:.1f} dB, expected at least {limits.min_psnr:g}"
        )
    return regressions


def _rates(report: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    yield "end to end", report["frames_per_second"], base["frames_per_second"]
    for name, before in base["stages"].items():
        if before["seconds"] >= _MIN_STAGE_FRACTION * base["seconds"]:
            now = report["stages"].get(name, {}).get("frames_per_second") or math.inf
            yield name, now, before["frames_per_second"]


def _frame_psnr(video: Path, other: Path) -> Iterator[float]:
    import torch
    from einops import rearrange

    from latentsync.media.video_reader import VideoReader
    from latentsync.metrics.visual_quality import psnr

    for frame, before in zip(VideoReader(video), VideoReader(other)):
        pred, true = (rearrange(torch.from_numpy(each.pixels), "h w c -> 1 c h w") for each in (frame, before))
        yield psnr(pred, true)


def _raise_on_regression(regressions: Sequence[str]) -> None:
    if regressions:
        raise RegressionError("Regression: " + "; ".join(regressions))
    logger.info("no regression")


def _read(path: Path) -> dict[str, Any]:
    try:
        base: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        base["frames"], base["frame_size"], base["stages"], base["frames_per_second"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--compare {path}: not a report written by --out ({error!r})") from error
    if not path.with_suffix(".mp4").is_file():
        raise ConfigError(
            f"--compare {path}: its video {path.with_suffix('.mp4')} is missing; measure again with --out"
        )
    return base


def _save(report: Mapping[str, Any], video: Path, out: Path, overwrite: bool) -> None:
    with atomic_output(out.with_suffix(".mp4"), overwrite) as unfinished:
        shutil.copyfile(video, unfinished)
    with atomic_output(out, overwrite) as unfinished:
        unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
