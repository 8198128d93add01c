"""Command line of the profiler: where the time of one lip-sync goes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli.inference import inference_parser, prepare_benchmark, run_command, run_job
from latentsync.errors import ConfigError, DependencyError, MediaError
from latentsync.media.output_file import publish

if TYPE_CHECKING:
    import torch

    from latentsync.pipelines.job import LipsyncResult
    from latentsync.profiling.session import Recording

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfileFiles:
    """What a profile is written to."""

    folder: Path

    @property
    def video(self) -> Path:
        """The video of the profiled run, unless it was given a name; its report lies beside it."""
        return self.folder / "video.mp4"

    @property
    def trace(self) -> Path:
        """Everything that was recorded, for a viewer of traces."""
        return self.folder / "trace.json.gz"

    @property
    def summary(self) -> Path:
        """The figures."""
        return self.folder / "summary.json"

    @property
    def operators(self) -> Path:
        """The operators that cost most."""
        return self.folder / "operators.txt"

    @property
    def chart(self) -> Path:
        """Timeline and stages."""
        return self.folder / "profile.png"

    def outputs(self) -> tuple[Path, ...]:
        """Everything but the video and its report."""
        return self.trace, self.summary, self.operators, self.chart

    def prepare_folder(self, overwrite: bool) -> None:
        """Make the folder and see that nothing found before would be replaced unasked.

        Raises:
            MediaError: the folder cannot be made, or has such a file.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"--out {self.folder}: cannot be made a folder ({error.strerror})") from error
        taken = [path.name for path in self.outputs() if os.path.lexists(path)]
        if taken and not overwrite:
            raise MediaError(f"--out {self.folder} has {', '.join(taken)} already; name another, or allow --overwrite")


def profiler_parser() -> argparse.ArgumentParser:
    """Every option of inference, and the profiler's own."""
    parser = inference_parser()
    parser.description = "Show where the time of one lip-sync goes. Without paths the bundled clip is used."
    add = parser.add_argument_group("how to profile").add_argument
    add("--out", type=Path, default=Path("outputs/profile"), help="folder for the results (%(default)s)")
    add("--warmup", type=int, default=1, metavar="N", help="runs before the profiled one (%(default)s)")
    return parser


def run_profiler(arguments: Sequence[str] | None = None) -> int:
    """Run the profiler's command line; returns the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    options = profiler_parser().parse_args(arguments)
    return run_command(options, partial(_profile, options))


def _profile(options: argparse.Namespace) -> int:
    from latentsync.profiling.machine import reset_peak_memory  # with torch, as everything below
    from latentsync.profiling.session import record

    if options.warmup < 0:
        raise ConfigError(f"--warmup {options.warmup}: a number of runs is needed, 0 or more")
    files = ProfileFiles(options.out)
    files.prepare_folder(options.overwrite)
    pipeline, job = prepare_benchmark(options, options.video_out_path or files.video)
    with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=files.folder) as name:
        unfinished = ProfileFiles(Path(name))
        warm_up = [
            run_job(pipeline, replace(job, video_out_path=unfinished.folder / f"warm_up_{number}.mp4")).total_seconds
            for number in range(1, options.warmup + 1)
        ]
        reset_peak_memory(pipeline.device)
        recording = record(partial(run_job, pipeline, job), pipeline.device, unfinished.trace)
        summary = _summary(recording, pipeline.device, warm_up)
        _write(unfinished, recording, summary)
        for made, final in zip(unfinished.outputs(), files.outputs()):
            if made.exists():
                publish(made, final, options.overwrite)
    logger.info("%s", _describe(summary, files))
    return 0


def _summary(recording: Recording[LipsyncResult], device: torch.device, warm_up: Sequence[float]) -> dict[str, Any]:
    from latentsync.profiling.machine import machine_info, peak_memory
    from latentsync.profiling.summary import summarize_trace

    result = recording.result
    metrics = summarize_trace(recording.trace)
    for name, seconds in result.stage_seconds.items():
        metrics["stages"].setdefault(name, {})["report_seconds"] = seconds
    return {
        "wall_seconds": round(recording.trace.wall_seconds, 3),
        "frames": result.num_frames,
        "frames_per_second": round(result.num_frames / recording.trace.wall_seconds, 3),
        "first_frame_seconds": result.first_frame_seconds,
        "warm_up_seconds": list(warm_up),
        "all_threads": recording.all_threads,
        **metrics,
        "peak_mib": peak_memory(device),
        "machine": {"device": str(device), **machine_info(device)},
        "settings": result.settings,
    }


def _write(files: ProfileFiles, recording: Recording[LipsyncResult], summary: dict[str, Any]) -> None:
    from latentsync.profiling.chart import plot_profile
    from latentsync.profiling.summary import format_operators

    # Paths become text; names that are not UTF-8 stay JSON escapes.
    files.summary.write_text(json.dumps(summary, indent=2, default=str) + "\n", encoding="utf-8")
    table = format_operators(recording.operators, has_gpu=bool(recording.trace.device_work))
    files.operators.write_text(table, encoding="utf-8")
    where = summary["machine"]["gpu"] or f"{summary['machine']['processor']}, {summary['machine']['cores']} cores"
    title = f"{summary['frames']} frames in {summary['wall_seconds']:.1f} s: {where}"
    try:
        plot_profile(recording.trace, files.chart, title)
    except DependencyError as error:
        logger.warning("%s. Everything else is written", error)


def _describe(summary: dict[str, Any], files: ProfileFiles) -> str:
    lines = [f"{summary['frames']} frames in {summary['wall_seconds']:.1f} s ({summary['frames_per_second']} frames/s)"]
    if summary["gpu_busy_fraction"] is not None:
        lines.append(f"  the GPU was busy for {summary['gpu_busy_fraction']:.1%} of the time")
    for name, stage in list(summary["stages"].items())[:5]:
        on_gpu = f", {stage['device_seconds']:.2f} s on the GPU" if stage.get("device_seconds") else ""
        lines.append(f"  {name}: {stage.get('host_seconds', stage.get('report_seconds')):.2f} s on the host{on_gpu}")
    return "\n".join([*lines, f"  more in {files.folder}"])
