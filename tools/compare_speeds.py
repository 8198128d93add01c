"""Compare sampler settings in cost and output, on a clip with a known ground-truth dub.

    python -m tools.compare_speeds --preset demo --out outputs/speeds.json --table outputs/speeds.md

Lip-syncs the beginning of the bundled clip once per row: the three speeds, and individual options. The mouth region of
each result is compared with that of a run with all steps and the same guidance. docs/speed.md explains the columns.
"""

import argparse
import json
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentsync.backends.placement import choose_placement
from latentsync.build.networks import load_syncnet
from latentsync.build.pipeline import build_pipeline, model_defaults
from latentsync.build.presets import ModelFiles, custom_files, preset_files
from latentsync.build.specs import build_schedule
from latentsync.checkpoints import registry as checkpoints
from latentsync.config.load import Config, load_config, load_syncnet_config
from latentsync.diffusion.denoise import plan_window
from latentsync.diffusion.solvers import solver_names
from latentsync.diffusion.speed import SPEEDS, SamplerRequest
from latentsync.diffusion.step_plan import network_calls
from latentsync.errors import ConfigError, DependencyError
from latentsync.face.detection.known_points import KnownPointsDetector
from latentsync.media.audio.reader import read_audio
from latentsync.media.audio.syncnet_mel import syncnet_mel
from latentsync.metrics.dub_quality import DubFolder, Metrics, aligned_crops, mouth_opening_metrics, similarity_metrics
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.pipelines.job import LipsyncJob
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine
from latentsync.runtime.resources import REPOSITORY
from latentsync.synthetic.dub_cases import bundled_case, write_case
from latentsync.synthetic.head.renderer import HeadRenderer
from tools.command import exit_code

logger = logging.getLogger("compare_speeds")

GUIDED = 1.5
"""Guidance scale of the rows about guidance, for models that use none by default."""
_KINDS = ("full guided", "full", "shallow guided", "shallow")


@dataclass(frozen=True)
class Variant:
    """A row of the table: a sampler setting, and the name of the row that it is compared with."""

    name: str
    request: SamplerRequest
    baseline: str = "exact"


def variants(model_steps: int, model_guidance: float) -> list[Variant]:
    """The rows for a model with these default steps and guidance scale; baselines come before their variants."""
    half = max(model_steps // 2, 1)
    rows = [Variant(name, SamplerRequest(name)) for name in SPEEDS]
    for solver in solver_names():
        rows.append(Variant(f"{solver}, {half} steps", SamplerRequest(solver=solver, steps=half)))
    rows += [Variant(f"cache_interval {n}", SamplerRequest(cache_interval=n)) for n in (2, 3)]
    baseline, scale = "exact", model_guidance
    if model_guidance <= 1:
        baseline, scale = f"guidance {GUIDED}", GUIDED
        rows += [
            Variant(baseline, SamplerRequest(guidance_scale=scale), baseline),
            Variant(f"{baseline}, realtime", SamplerRequest("realtime", guidance_scale=scale), baseline),
        ]
    for interval in ((0.0, 0.5), (0.5, 1.0)):
        request = SamplerRequest(guidance_scale=scale, guidance_interval=interval)
        rows.append(Variant(f"guidance_interval {interval[0]:g} {interval[1]:g}", request, baseline))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and measure; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        return exit_code(lambda: _run(arguments, arguments.keep or Path(temporary)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", help="default: the best one whose weights are present")
    add("--checkpoints", type=Path, default=REPOSITORY / "checkpoints")
    add("--unet_config_path", type=Path, help="config of a custom U-Net, with --inference_ckpt_path")
    add("--inference_ckpt_path", type=Path)
    add("--inference_steps", type=int, help="default: that of the model")
    add("--guidance_scale", type=float, help="default: that of the model")
    add("--syncnet_config_path", type=Path, default=REPOSITORY / "configs/syncnet/demo.yaml")
    add("--syncnet_ckpt_path", type=Path, help="default: demo/syncnet.safetensors of --checkpoints")
    add("--device", default="auto", help="auto, cpu, cuda (default %(default)s)")
    add("--dtype", default="auto", help="as in scripts.inference (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="duration, at least 1.3 (default %(default)s)")
    add("--only", nargs="+", metavar="NAME", help="only these rows and their baselines")
    add("--keep", type=Path, help="folder to keep the videos in")
    add("--out", type=Path, help="report to write (.json)")
    add("--table", type=Path, help="table to write (.md); it is also printed")
    return parser


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    files, config = _model(arguments)
    run, placement = config.run, choose_placement(arguments.device, arguments.dtype)
    device = placement.devices[0]
    selected = _select(variants(run.inference_steps, run.guidance_scale), arguments.only)
    with torch.inference_mode():
        case = write_case(bundled_case(REPOSITORY / "assets/demo_video.mp4", 0, 0), folder, HeadRenderer(device))
    meter = _sync_meter(arguments, device)
    rows = [_plan_row(variant, config) for variant in selected]
    pipeline = build_pipeline(files, placement, _detector(case))
    pipeline.defaults = model_defaults(config)
    for variant, row in zip(selected, rows):
        row["denoise_seconds"] = _generate(pipeline, _dub(variant.name, case), variant.request, arguments.seconds)
        logger.info("%s: %.1f seconds of denoising", variant.name, row["denoise_seconds"])
    for variant, row in zip(selected, rows):
        row |= _measure(variant, case, config.data.resolution, meter)
        logger.info("%s", row)
    settings = {
        "model": files.name,
        "steps": run.inference_steps,
        "guidance_scale": run.guidance_scale,
        "seconds": arguments.seconds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    _write(arguments, {"settings": settings, "rows": rows})


def _model(arguments: argparse.Namespace) -> tuple[ModelFiles, Config]:
    """The files of the model, and its config with the requested steps and guidance."""
    if arguments.unet_config_path and arguments.inference_ckpt_path:
        files = custom_files(arguments.unet_config_path, arguments.inference_ckpt_path, arguments.checkpoints)
    else:
        files = preset_files(arguments.preset, arguments.checkpoints)
    config = load_config(files.config_path)
    for name in ("inference_steps", "guidance_scale"):
        if getattr(arguments, name) is not None:
            setattr(config.run, name, getattr(arguments, name))
    return files, config


def _write(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    table = markdown(report["rows"])
    sys.stdout.write(table)
    if arguments.table:
        arguments.table.write_text(table, encoding="utf-8")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _select(rows: list[Variant], only: list[str] | None) -> list[Variant]:
    """The requested rows and their baselines."""
    if only is None:
        return rows
    unknown = set(only) - {row.name for row in rows}
    if unknown:
        known = ", ".join(repr(row.name) for row in rows)
        raise ConfigError(f"--only: unknown rows {', '.join(sorted(unknown))}; the rows of this model are {known}")
    needed = {*only, *(row.baseline for row in rows if row.name in only)}
    return [row for row in rows if row.name in needed]


def _plan_row(variant: Variant, config: Config) -> dict[str, Any]:
    """The columns of a row that are known before generation."""
    options = variant.request.options(config.run.inference_steps, config.run.guidance_scale)
    calls = network_calls(plan_window(build_schedule(config), options))
    return {
        "name": variant.name,
        "baseline": variant.baseline,
        "solver": options.solver,
        "steps": options.steps,
        "calls": {kind: calls.get(kind, 0) for kind in _KINDS},
    }


def _detector(case: Path) -> Callable[[], KnownPointsDetector]:
    return partial(KnownPointsDetector, DubFolder(case).control_points)


def _generate(pipeline: LipsyncEngine, dub: DubFolder, request: SamplerRequest, seconds: float) -> float:
    """Lip-sync the case; returns the denoising time in seconds."""
    job = LipsyncJob(
        dub.source,
        dub.speech,
        dub.result,
        speed=request.speed,
        inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        solver=request.solver,
        cache_interval=request.cache_interval,
        guidance_interval=request.guidance_interval,
        preview=seconds,
        overwrite=True,
    )
    return pipeline(job).stage_seconds.get("denoise", 0.0)


def _measure(variant: Variant, case: Path, resolution: int, meter: tuple[SyncMeter, int] | None) -> dict[str, Any]:
    """All metrics of a row, rounded; None for a metric that is not finite."""
    dub = _dub(variant.name, case)
    metrics: Metrics = {}
    if variant.name != variant.baseline:
        metrics |= similarity_metrics(dub, _dub(variant.baseline, case).result, resolution)
    if meter is not None:
        judge, side = meter
        mel = syncnet_mel(torch.from_numpy(read_audio(dub.speech)))
        metrics["sync_conf"] = judge.score(aligned_crops(dub.result, dub.control_points, side), mel).sync_conf
    try:
        metrics["r"] = mouth_opening_metrics(dub)["r"]
    except DependencyError as error:
        logger.warning("The mouth opening is not measured: %s", error)
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in metrics.items()}


def _dub(name: str, case: Path) -> DubFolder:
    """The case with the result of a row."""
    return DubFolder(case, "".join(letter if letter.isalnum() else "_" for letter in name) + ".mp4")


def _sync_meter(arguments: argparse.Namespace, device: torch.device) -> tuple[SyncMeter, int] | None:
    """The SyncNet and the resolution of its crops; None if its weights are missing."""
    weights = arguments.syncnet_ckpt_path or checkpoints.find("demo-syncnet", arguments.checkpoints)
    if weights is None:
        return None
    config = load_syncnet_config(arguments.syncnet_config_path)
    network = load_syncnet(config, weights).to(device)
    return SyncMeter(network, config.data.num_frames, config.data.lower_half), config.data.resolution


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown; a dash stands for a missing value."""
    headers = ["sampler", "steps", "network calls per window", "compared with", "PSNR", "SSIM", "`sync_conf`", "`r`"]
    lines = [headers, ["---"] * len(headers)]
    for row in rows:
        calls = ", ".join(f"{count} {kind}" for kind, count in row["calls"].items() if count)
        is_baseline = row["baseline"] == row["name"]
        lines.append([row["name"], str(row["steps"]), calls, "-" if is_baseline else row["baseline"]])
        lines[-1] += [_format(row.get("psnr_mouth"), ".1f", " dB"), _format(row.get("ssim_mouth"), ".3f")]
        lines[-1] += [_format(row.get(name), ".3f") for name in ("sync_conf", "r")]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _format(value: float | None, spec: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{spec}}{unit}"


if __name__ == "__main__":
    sys.exit(main())
