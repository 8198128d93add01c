"""Command line of the SyncNet evaluation: accuracy on clips that the network was not trained on."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentsync.config.load import load_syncnet_config
from latentsync.errors import LatentSyncError
from latentsync.runtime.resources import REPOSITORY

logger = logging.getLogger(__name__)


def evaluate_syncnet(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a SyncNet and print the metrics as JSON; returns the exit code: 0, 1 after an error."""
    options = evaluation_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        report = _evaluate(options)
    except LatentSyncError as error:
        logger.error("Error: %s", error)
        return 1
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


def evaluation_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        description="Accuracy of a SyncNet on pairs in and out of sync, and how often it finds the offset of shifted "
        "sound. Prints JSON; with --out also writes OUT.json and the chart OUT.png. See docs/evaluation.md."
    )
    parser.add_argument("--config_path", type=Path, default=REPOSITORY / "configs/syncnet/demo.yaml")
    parser.add_argument("--checkpoint", type=Path, help="default: ckpt.inference_ckpt_path of the config")
    parser.add_argument("--data_dir", type=Path, help="folder of aligned clips; default: the val data of the config")
    parser.add_argument("--num_pairs", type=int, default=2048)
    parser.add_argument("--min_shift", type=int, help="smallest shift in frames of a negative pair")
    parser.add_argument("--num_clips", type=int, help="clips whose audio is shifted (default: all; 0: none)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--out", type=Path, help="path of the JSON file and the chart, without suffix")
    return parser


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from latentsync.backends.placement import choose_device  # with torch, which --help and usage errors do not need
    from latentsync.build.networks import load_syncnet
    from latentsync.build.paths import resolve_weights
    from latentsync.data.clips.clip_list import list_clips
    from latentsync.evaluation.syncnet_accuracy import EvaluationOptions, judge_offsets, judge_pairs
    from latentsync.metrics.sync_charts import draw_accuracy_chart
    from latentsync.metrics.sync_conf import SyncMeter

    config = load_syncnet_config(arguments.config_path)
    weights = arguments.checkpoint or resolve_weights(
        config.ckpt.inference_ckpt_path, "stable-syncnet", "ckpt.inference_ckpt_path"
    )
    network = load_syncnet(config, weights).to(choose_device(arguments.device))
    meter = SyncMeter(network, config.data.num_frames, config.data.lower_half, arguments.batch_size)
    clips = list_clips(
        None if arguments.data_dir else config.data.val_fileslist, arguments.data_dir or config.data.val_data_dir
    )
    options = EvaluationOptions(
        num_pairs=arguments.num_pairs,
        resolution=config.data.resolution,
        min_shift=config.data.min_shift if arguments.min_shift is None else arguments.min_shift,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        workers=arguments.num_workers,
    )
    pairs = judge_pairs(meter, clips, options)
    report: dict[str, Any] = {
        "checkpoint": str(weights),
        "clips": len(clips),
        "seed": options.seed,
        "min_shift": options.min_shift,
        "pairs": pairs.metrics(),
    }
    problems, chart = pairs.problems, None
    if arguments.num_clips != 0:
        offsets = judge_offsets(meter, clips[: arguments.num_clips], options)
        problems = problems | offsets.problems
        report["offsets"], chart = offsets.metrics(), (offsets.true, offsets.found)
    report["unusable_clips"] = problems
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        draw_accuracy_chart(arguments.out.with_name(arguments.out.name + ".png"), pairs.scores, pairs.labels, chart)
        _write_json(arguments.out.with_name(arguments.out.name + ".json"), report)
    return report


def _write_json(path: Path, report: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
