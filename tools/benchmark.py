"""Measure the end-to-end speed of a model from file to file, and compare it with an earlier measurement.

    python -m tools.benchmark --preset demo --out outputs/before.json
    python -m tools.benchmark --preset demo --compare outputs/before.json

After one warm-up run, --repeats runs are timed; the report has their medians. --out saves the report and, beside it,
the video. --compare fails if a rate dropped by more than --tolerance or the video changed. All options of
scripts.inference are accepted; without paths, the bundled clip is used.
"""

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
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from latentsync.cli.inference import prepare_benchmark
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.media.output_file import atomic_output, check_output
from latentsync.media.video_reader import VideoReader
from latentsync.metrics.visual_quality import psnr
from latentsync.pipelines.job import LipsyncResult
from latentsync.profiling.machine import machine_info, peak_memory, reset_peak_memory
from tools.command import with_inference_options

logger = logging.getLogger("benchmark")

_MIN_STAGE_FRACTION = 0.02  # of the total time; rates of shorter stages are too noisy to compare


class RegressionError(LatentSyncError):
    """A rate dropped, or the result changed."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of a comparison.

    Attributes:
        tolerance: fraction by which a rate may drop.
        min_psnr: minimum PSNR in dB of every frame against the earlier video.
    """

    tolerance: float = 0.1
    min_psnr: float = 40.0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and measure; returns the exit code, which is 1 also for a regression."""
    return with_inference_options(_parser(), argv, _run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (%(default)s)")
    parser.add_argument("--out", type=Path, help="report to write (.json); the video is saved beside it")
    parser.add_argument("--compare", type=Path, help="report of an earlier --out")
    parser.add_argument("--tolerance", type=float, default=0.1, help="fraction by which a rate may drop (%(default)s)")
    parser.add_argument(
        "--min_psnr", type=float, default=40.0, help="minimum PSNR in dB against the earlier video (%(default)s)"
    )
    return parser


def _run(tool_args: argparse.Namespace, options: argparse.Namespace) -> None:
    _check(tool_args, options)
    base = _read(tool_args.compare) if tool_args.compare else None
    with tempfile.TemporaryDirectory(prefix="latentsync_benchmark_") as folder:
        report, video = measure(options, tool_args.repeats, Path(folder))
        print(json.dumps(report, indent=2))
        limits = Limits(tool_args.tolerance, tool_args.min_psnr)
        # Compare before saving, which may replace the earlier video.
        base_video = tool_args.compare.with_suffix(".mp4") if tool_args.compare else None
        regressions = compare(report, base, video, base_video, limits) if base and base_video else None
        if tool_args.out:
            _save(report, video, tool_args.out, options.overwrite)
        if regressions is not None:
            _raise_on_regression(regressions)


def _check(tool_args: argparse.Namespace, options: argparse.Namespace) -> None:
    if tool_args.repeats < 1 or not 0 <= tool_args.tolerance < 1:
        raise ConfigError(
            f"Got --repeats {tool_args.repeats} --tolerance {tool_args.tolerance}; expected at least 1 repeat and a "
            "tolerance from 0 to below 1"
        )
    if options.video_out_path:
        raise ConfigError(f"--video_out_path {options.video_out_path}: the video is saved beside --out; give --out")
    if tool_args.out:
        tool_args.out.parent.mkdir(parents=True, exist_ok=True)
        check_output(tool_args.out.with_suffix(".mp4"), overwrite=options.overwrite)
        if tool_args.out.exists() and not options.overwrite:
            raise ConfigError(f"--out {tool_args.out} exists already; give another name, or --overwrite")


def measure(options: argparse.Namespace, repeats: int, folder: Path) -> tuple[dict[str, Any], Path]:
    """Run once to warm up, then ``repeats`` times.

    Args:
        options: options of scripts.inference.
        repeats: number of timed runs.
        folder: folder for the videos.

    Returns:
        The report, and the path of the last video in ``folder``.
    """
    pipeline, job = prepare_benchmark(options, folder / "warm_up.mp4")
    reset_peak_memory(pipeline.device)
    pipeline(job)
    results = []
    for number in range(1, repeats + 1):
        results.append(pipeline(replace(job, video_out_path=folder / f"run_{number}.mp4")))
        logger.info("run %d of %d: %.2f frames/s", number, repeats, results[-1].frames_per_second)
    return _report(pipeline.device, results), results[-1].video_out_path


def _report(device: torch.device, results: Sequence[LipsyncResult]) -> dict[str, Any]:
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
    """Regressions against an earlier report, one line each; empty if there are none.

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
        raise ConfigError(
            f"--compare {path}: not a report written by --out ({error!r}); measure again with --out"
        ) from error
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


if __name__ == "__main__":
    sys.exit(main())
