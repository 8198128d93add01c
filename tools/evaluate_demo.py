"""Evaluate finished videos of a model: lip sync, similarity to the ground truth, and flicker.

    python -m tools.evaluate_demo --clips 3 --seconds 4 --strips /tmp/strips

Renders the bundled scene and scenes of held-out people, lip-syncs each to other held-out speech with the complete
pipeline, and compares the result with the rendered ground-truth dub. Prints JSON; docs/evaluation.md explains the
metrics. The three phases (render, generate, measure) can run on different machines that share a --keep folder.
"""

import argparse
import json
import logging
import math
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentsync.backends.placement import choose_device, choose_placement
from latentsync.build.networks import load_syncnet
from latentsync.build.pipeline import DETECTORS, build_face_detector, build_pipeline
from latentsync.build.presets import custom_files, preset_files
from latentsync.checkpoints import registry as checkpoints
from latentsync.config.load import load_config, load_syncnet_config
from latentsync.errors import ConfigError, DependencyError
from latentsync.face.compositing.masks import load_mask
from latentsync.face.detection.known_points import KnownPointsDetector
from latentsync.metrics.dub_quality import (
    DubFolder,
    image_metrics,
    mean_metrics,
    mouth_opening_metrics,
    sync_metrics,
)
from latentsync.metrics.film_strip import StripLayout, make_strip, save_image
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.pipelines.job import LipsyncJob
from latentsync.runtime.resources import REPOSITORY
from latentsync.synthetic.dub_cases import bundled_case, held_out_case, write_case
from latentsync.synthetic.head.renderer import HeadRenderer
from tools.command import exit_code

logger = logging.getLogger("evaluate_demo")

_SCENES, _SETTINGS = "scenes.json", "settings.json"
_ROWS = ("source", "truth", "generated")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the phases; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        return exit_code(lambda: _run(arguments, _folder(arguments, Path(temporary))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("model")
    what.add_argument("--preset", default="demo")
    what.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints")
    what.add_argument("--unet_config_path", type=Path, help="config of a custom U-Net, with --inference_ckpt_path")
    what.add_argument("--inference_ckpt_path", type=Path)
    what.add_argument("--inference_steps", type=int, help="default: the preset's")
    what.add_argument("--guidance_scale", type=float, help="default: the preset's")
    what.add_argument("--syncnet_config_path", type=Path, default=REPOSITORY / "configs/syncnet/demo.yaml")
    what.add_argument("--syncnet_ckpt_path", type=Path, help="default: demo/syncnet.safetensors of --checkpoints")
    scenes = parser.add_argument_group("scenes")
    scenes.add_argument("--clips", type=int, default=3, help="clips of held-out people (default %(default)s)")
    scenes.add_argument("--bundled_clips", type=int, default=1, help="dubs of the bundled clip (default %(default)s)")
    scenes.add_argument("--seconds", type=float, default=4.0, help="duration of held-out clips (default %(default)s)")
    scenes.add_argument("--size", type=int, default=512, help="side of their frames in pixels (default %(default)s)")
    scenes.add_argument("--seed", type=int, default=90210)
    how = parser.add_argument_group("execution and output")
    how.add_argument("--device", default="cpu", help="auto, cpu, cuda (default %(default)s)")
    how.add_argument("--dtype", default="auto", help="as in scripts.inference (default %(default)s)")
    how.add_argument(
        "--detector", default="mediapipe", choices=(*DETECTORS[1:], "known"), help="known: use the ground-truth points"
    )
    how.add_argument("--keep", type=Path, help="folder to keep all clips and results in, and to resume from")
    only = how.add_mutually_exclusive_group()
    only.add_argument("--prepare_only", action="store_true", help="only render the scenes, into --keep")
    only.add_argument("--generate_only", action="store_true", help="only render and lip-sync, in --keep")
    only.add_argument("--measure_only", action="store_true", help="only measure the results in --keep")
    how.add_argument("--strips", type=Path, help="folder for a film strip of each clip")
    how.add_argument("--out", type=Path, help="report to write (.json; default: print it)")
    return parser


def _folder(arguments: argparse.Namespace, temporary: Path) -> Path:
    """Folder of the cases; raises ConfigError if a single phase is requested without --keep."""
    partial_run = arguments.prepare_only or arguments.generate_only or arguments.measure_only
    if partial_run and arguments.keep is None:
        raise ConfigError("--prepare_only, --generate_only and --measure_only need --keep FOLDER; give that option")
    folder: Path = arguments.keep or temporary
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    if arguments.measure_only:
        cases = [DubFolder(path.parent) for path in sorted(folder.glob("*/result.mp4"))]
    else:
        cases = _prepare(arguments, folder)
        if arguments.prepare_only:
            return
        _generate(arguments, cases, folder)
        if arguments.generate_only:
            return
    if not cases:
        raise ConfigError(
            f"Nothing to measure in {folder}: expected subfolders with a result.mp4; run --generate_only first, or "
            "give --clips"
        )
    report = _measure(arguments, cases, json.loads((folder / _SETTINGS).read_text(encoding="utf-8")))
    text = json.dumps(_without_nan(report), indent=1, allow_nan=False) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def _prepare(arguments: argparse.Namespace, folder: Path) -> list[DubFolder]:
    """Render the cases that are missing; a complete set, also from another machine, is used as it is."""
    options = {name: getattr(arguments, name) for name in ("seed", "clips", "bundled_clips", "seconds", "size")}
    scenes_path = folder / _SCENES
    if scenes_path.is_file():
        scenes = json.loads(scenes_path.read_text(encoding="utf-8"))
        if scenes.get("options") == options:
            return [DubFolder(folder / name) for name in scenes["cases"]]
    video, seed = REPOSITORY / "assets" / "demo_video.mp4", arguments.seed
    makers = [partial(bundled_case, video, seed, number) for number in range(arguments.bundled_clips)]
    makers += [
        partial(held_out_case, seed, number, arguments.seconds, arguments.size) for number in range(arguments.clips)
    ]
    renderer = HeadRenderer(choose_device(arguments.device))
    cases = []
    for number, make in enumerate(makers, start=1):
        with torch.inference_mode():
            cases.append(DubFolder(write_case(make(), folder, renderer)))
        logger.info("scene %d of %d: %s", number, len(makers), cases[-1].path.name)
    scenes = {"options": options, "cases": [case.path.name for case in cases]}
    scenes_path.write_text(json.dumps(scenes, indent=1) + "\n", encoding="utf-8")
    return cases


def _generate(arguments: argparse.Namespace, cases: list[DubFolder], folder: Path) -> None:
    """Lip-sync every case as ./inference.sh does, and record the settings."""
    placement = choose_placement(arguments.device, arguments.dtype)
    device = placement.devices[0]
    if arguments.unet_config_path and arguments.inference_ckpt_path:
        files = custom_files(arguments.unet_config_path, arguments.inference_ckpt_path, arguments.checkpoints)
    else:
        files = preset_files(arguments.preset, arguments.checkpoints)
    config = load_config(files.config_path)
    steps = arguments.inference_steps or config.run.inference_steps
    guidance_scale = config.run.guidance_scale if arguments.guidance_scale is None else arguments.guidance_scale
    known = arguments.detector == "known"
    detector = build_face_detector("auto" if known else arguments.detector, arguments.checkpoints, device)
    pipeline = build_pipeline(files, placement, detector)
    for number, case in enumerate(cases, start=1):
        if known:
            pipeline.make_detector = partial(KnownPointsDetector, case.control_points)
        job = LipsyncJob(
            case.source,
            case.speech,
            case.result,
            inference_steps=steps,
            guidance_scale=guidance_scale,
            overwrite=True,
        )
        result = pipeline(job)
        logger.info("result %d of %d: %.1f frames per second", number, len(cases), result.frames_per_second)
    settings = {
        "model": files.name,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "detector": arguments.detector,
        "device": device.type,
        "dtype": str(placement.dtype).removeprefix("torch."),
        "mask": config.data.mask_image_path,
        "resolution": config.data.resolution,
    }
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _measure(arguments: argparse.Namespace, cases: list[DubFolder], settings: dict[str, Any]) -> dict[str, Any]:
    """Compute all metrics and, if requested, write the strips."""
    repaint_mask = 1 - load_mask(settings["mask"], settings["resolution"])[0]
    judge = _syncnet_judge(arguments)
    clips: list[dict[str, Any]] = []
    for case in cases:
        metrics = image_metrics(case, repaint_mask)
        if judge:
            metrics |= sync_metrics(case, *judge)
        try:
            metrics |= mouth_opening_metrics(case)
        except DependencyError as error:
            logger.warning("The mouth opening is not measured: %s", error)
        clips.append({"clip": case.path.name} | {name: round(value, 4) for name, value in metrics.items()})
        logger.info("%s", clips[-1])
        if arguments.strips:
            _write_strip(case, arguments.strips)
    groups = {name: [clip for clip in clips if clip["clip"].startswith(name)] for name in ("bundled", "held_out")}
    means = {name: _means(group) for name, group in ({"all": clips} | groups).items() if group}
    return {"settings": settings, "mean": means, "clips": clips}


def _means(clips: list[dict[str, Any]]) -> dict[str, float]:
    return mean_metrics([{name: value for name, value in clip.items() if name != "clip"} for clip in clips])


def _syncnet_judge(arguments: argparse.Namespace) -> tuple[SyncMeter, int] | None:
    """The SyncNet and the resolution of its crops; None if its weights are missing."""
    weights = arguments.syncnet_ckpt_path or checkpoints.find("demo-syncnet", arguments.checkpoints)
    if weights is None:
        logger.warning("No SyncNet metrics: demo-syncnet is missing in %s", arguments.checkpoints)
        return None
    config = load_syncnet_config(arguments.syncnet_config_path)
    network = load_syncnet(config, weights).to(choose_device(arguments.device))
    return SyncMeter(network, config.data.num_frames, config.data.lower_half), config.data.resolution


def _write_strip(case: DubFolder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    layout = StripLayout(case.face_box(), columns=8, width=144, labels=_ROWS)
    save_image(make_strip([case.source, case.truth, case.result], layout), folder / f"{case.path.name}.jpg")


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, by None."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
