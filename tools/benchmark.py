"""Measure how fast a model lip-syncs from file to file, and compare with an earlier measurement.

    python -m tools.benchmark --preset demo --out outputs/before.json
    python -m tools.benchmark --preset demo --compare outputs/before.json

One run to warm up, then --repeats runs; figures are medians. --out keeps the figures, and beside them the video.
--compare fails where a rate fell by more than --tolerance or the video is another one. Every option of
scripts.inference chooses what is measured; without paths it is the bundled clip.
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

_MIN_STAGE_FRACTION = 0.02  # of the whole; rates of shorter stages say little


class RegressionError(LatentSyncError):
    """A rate fell, or the result is another one."""


@dataclass(frozen=True)
class Limits:
    """What a comparison lets pass.

    Attributes:
        tolerance: share by which a rate may fall.
        min_psnr: dB that every frame must reach against the earlier video.
    """

    tolerance: float = 0.1
    min_psnr: float = 40.0


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and measure; returns the exit code, 1 also after a regression."""
    return with_inference_options(_parser(), argv, _run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (%(default)s)")
    parser.add_argument("--out", type=Path, help="file for the figures (.json); the video comes beside it")
    parser.add_argument("--compare", type=Path, help="figures of an earlier --out")
    parser.add_argument("--tolerance", type=float, default=0.1, help="share by which a rate may fall (%(default)s)")
    parser.add_argument("--min_psnr", type=float, default=40.0, help="dB of every frame against the earlier video")
    return parser


def _run(tool_args: argparse.Namespace, options: argparse.Namespace) -> None:
    _check(tool_args, options)
    base = _read(tool_args.compare) if tool_args.compare else None
    with tempfile.TemporaryDirectory(prefix="latentsync_benchmark_") as folder:
        report, video = measure(options, tool_args.repeats, Path(folder))
        print(json.dumps(report, indent=2))
        limits = Limits(tool_args.tolerance, tool_args.min_psnr)
        # Before anything is kept, which may replace the earlier video.
        worse = None if base is None else compare(report, base, video, tool_args.compare.with_suffix(".mp4"), limits)
        if tool_args.out:
            _keep(report, video, tool_args.out, options.overwrite)
        if worse is not None:
            _raise_on_regression(worse)


def _check(tool_args: argparse.Namespace, options: argparse.Namespace) -> None:
    if tool_args.repeats < 1 or not 0 <= tool_args.tolerance < 1:
        raise ConfigError(f"--repeats 1 or more and --tolerance from 0 to below 1 are needed, got {tool_args}")
    if options.video_out_path:
        raise ConfigError(f"--video_out_path {options.video_out_path}: the video is kept beside --out; give that")
    if tool_args.out:
        tool_args.out.parent.mkdir(parents=True, exist_ok=True)
        check_output(tool_args.out.with_suffix(".mp4"), overwrite=options.overwrite)
        if tool_args.out.exists() and not options.overwrite:
            raise ConfigError(f"--out {tool_args.out} exists already; give another name, or --overwrite")


def measure(options: argparse.Namespace, repeats: int, folder: Path) -> tuple[dict[str, Any], Path]:
    """Run once to warm up and ``repeats`` times; returns the figures and the last video, which lies in ``folder``."""
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
        "picture": [results[0].width, results[0].height],
        "frames": frames,
        "seconds": seconds,
        "frames_per_second": round(frames / seconds, 3),
        "first_frame_seconds": statistics.median(result.first_frame_seconds for result in results),
        "all_frames_per_second": [round(result.frames_per_second, 3) for result in results],
        "stages": {
            name: {
                "seconds": value,
                "share": round(value / seconds, 3),
                "frames_per_second": round(frames / value, 3) if value else None,
            }
            for name, value in sorted(stages.items(), key=lambda item: -item[1])
        },
        "peak_mib": peak_memory(device),
    }


def compare(
    report: Mapping[str, Any], base: Mapping[str, Any], video: Path, base_video: Path, limits: Limits
) -> list[str]:
    """What became worse, a line each; none where all is well.

    Raises:
        ConfigError: the earlier measurement is of something else.
    """
    for what in ("frames", "picture"):
        if report[what] != base[what]:
            raise ConfigError(
                f"The earlier measurement is of another run: {what} {base[what]}, now {report[what]}; give the same "
                "options to both"
            )
    worse = [
        f"{name}: {now:.3g} frames/s, {before:.3g} before"
        for name, now, before in _rates(report, base)
        if now < before * (1 - limits.tolerance)
    ]
    nearest = min(_frame_psnr(video, base_video))
    if nearest < limits.min_psnr:
        worse.append(f"the video differs: a frame reaches {nearest:.1f} dB only, {limits.min_psnr:g} are expected")
    return worse


def _rates(report: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    yield "end to end", report["frames_per_second"], base["frames_per_second"]
    for name, before in base["stages"].items():
        if before["seconds"] >= _MIN_STAGE_FRACTION * base["seconds"]:
            now = report["stages"].get(name, {}).get("frames_per_second") or math.inf
            yield name, now, before["frames_per_second"]


def _frame_psnr(video: Path, other: Path) -> Iterator[float]:
    for frame, before in zip(VideoReader(video), VideoReader(other)):
        made, true = (rearrange(torch.from_numpy(each.pixels), "h w c -> 1 c h w") for each in (frame, before))
        yield psnr(made, true)


def _raise_on_regression(worse: Sequence[str]) -> None:
    if worse:
        raise RegressionError("Worse than before: " + "; ".join(worse))
    logger.info("no worse than before")


def _read(path: Path) -> dict[str, Any]:
    try:
        base: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        base["frames"], base["stages"], base["frames_per_second"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--compare {path}: these are no figures of --out ({error!r})") from error
    if not path.with_suffix(".mp4").is_file():
        raise ConfigError(
            f"--compare {path}: its video {path.with_suffix('.mp4')} is missing; measure again with --out"
        )
    return base


def _keep(report: Mapping[str, Any], video: Path, out: Path, overwrite: bool) -> None:
    with atomic_output(out.with_suffix(".mp4"), overwrite) as unfinished:
        shutil.copyfile(video, unfinished)
    with atomic_output(out, overwrite) as unfinished:
        unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
