"""Measure training steps of the U-Net configurations at full size, with random weights: peak memory and steps a second.

    python -m tools.benchmark_training --configs stage1 stage2_512 --out training.json
    torchrun --nproc-per-node 2 -m tools.benchmark_training --configs stage1 --out two_gpus.json

The windows are random numbers on the device, so that the loader plays no part. A step is what `./train_unet.sh` does:
encoding, noise, the network, the critics, the update.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentsync.build.losses import unet_loss_needs
from latentsync.build.networks import (
    FrozenNetworks,
    build_syncnet_spec,
    build_unet,
    build_videomae_spec,
    frozen_dtype,
)
from latentsync.build.training import build_trainer_options, build_unet_task
from latentsync.config.load import Config, load_config, load_syncnet_config
from latentsync.data.sampling.samples import UNetBatch
from latentsync.face.compositing.masks import load_mask
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.models.vae import PUBLISHED_CONFIG
from latentsync.models.vgg_lpips import VggLpips
from latentsync.models.video_mae import VideoMae
from latentsync.runtime.resources import REPOSITORY
from latentsync.training.loop.options import TrainingResult
from latentsync.training.loop.processes import current_shard, shutdown_distributed
from latentsync.training.loop.trainer import Trainer
from latentsync.training.unet.latent_windows import WindowEncoder
from latentsync.training.unet.task import ValidationSet

logger = logging.getLogger("benchmark_training")

_CONFIGS = ("stage1", "stage2", "stage2_efficient", "stage1_512", "stage2_512")
_MEL_COLUMNS = 52
_AUDIO_TOKENS = 50
_WARM_UP = 5


class _RandomWindows:
    """Always the same batch of random frames; see `latentsync.training.loop.task.BatchSource`."""

    steps_per_epoch = 1 << 20

    def __init__(self, config: Config, rank: int) -> None:
        data = config.data
        shape = (data.batch_size, data.num_frames, 3, data.resolution, data.resolution)
        generator = torch.Generator().manual_seed(rank)
        frames = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        reference = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        self.batch = UNetBatch(
            gt_frames=frames,
            source_frames=frames,
            ref_frames=reference,
            mel=torch.randn((data.batch_size, 1, 80, _MEL_COLUMNS), generator=generator),
            clips=["random"] * data.batch_size,
            starts=torch.zeros(data.batch_size, dtype=torch.int64),
            sample_ids=torch.arange(data.batch_size),
            problems={},
        )

    def batches(self, epoch: int, first: int) -> Iterator[UNetBatch]:
        """The batch, with other sample numbers at every step."""
        for number in range(first, self.steps_per_epoch):
            yield replace(self.batch, sample_ids=self.batch.sample_ids + number * len(self.batch.clips))

    def problems(self) -> Mapping[str, str]:
        """None."""
        return {}


def main() -> int:
    """Read the command line, measure, print."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    shard = current_shard()
    device = torch.device("cuda", shard.rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rows = []
    for name in arguments.configs:
        overrides = [f"run.max_train_steps={arguments.steps}", *arguments.set]
        config = load_config(REPOSITORY / "configs" / "unet" / f"{name}.yaml", ["ckpt.resume_ckpt_path=", *overrides])
        row = {"config": name, "processes": shard.world_size, **_measure(config, device)}
        if shard.rank == 0:
            logger.info("%s", json.dumps(row))
        rows.append(row)
    shutdown_distributed()
    if arguments.out and shard.rank == 0:
        machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        facts = {"machine": machine, "torch": torch.__version__, "set": arguments.set, "rows": rows}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=_CONFIGS, metavar="NAME", help="of configs/unet")
    parser.add_argument("--steps", type=int, default=12, help="updates, of which the first five are not timed")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="change the configurations")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser


def _measure(config: Config, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    networks = _random_networks(config, device)
    with device:
        audio = torch.randn(config.data.num_frames, _AUDIO_TOKENS, config.model.cross_attention_dim)
        unet = build_unet(config)
    mask = load_mask(config.data.mask_image_path, config.data.resolution)
    prepare = WindowEncoder(networks.vae, lambda clip, start, frames: audio, mask)
    task = build_unet_task(config, unet, networks, prepare, ValidationSet())
    trained = sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad)
    with tempfile.TemporaryDirectory() as folder:
        options = build_trainer_options(config, folder)
        trainer = _Timed(task, _RandomWindows(config, current_shard().rank), replace(options, progress=False))
        result = trainer.run()
    return {
        "resolution": config.data.resolution,
        "batch_size": config.data.batch_size,
        "trained_millions": round(trained / 1e6, 1),
        "checkpointing": config.run.enable_gradient_checkpointing,
        "compiled": config.run.compile,
        "steps_per_second": round(result.steps_per_second, 4),
        "peak_gb": round(result.peak_cuda_bytes / 1e9, 2),
    }


class _Timed(Trainer):
    """The loop without its end: nothing is saved."""

    def _finish(self, ended_by: Any) -> TrainingResult:
        device = self.processes.device
        return TrainingResult(
            steps=self.progress.step,
            ended_by=ended_by,
            seconds=statistics.median(self._step_seconds[_WARM_UP:]),
            checkpoint=Path(),
            weights=Path(),
            skipped=self.progress.skipped,
            problems={},
            steps_per_second=1 / statistics.median(self._step_seconds[_WARM_UP:]),
            peak_cuda_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        )


def _random_networks(config: Config, device: torch.device) -> FrozenNetworks:
    dtype = frozen_dtype(device)

    def ready(network: nn.Module) -> Any:
        return network.to(device, dtype).eval().requires_grad_(False)

    with device:
        networks = FrozenNetworks(ready(AutoencoderKL(VaeConfig.from_mapping(PUBLISHED_CONFIG))), None)
        needs = unet_loss_needs(config)
        if "syncnet" in needs:
            syncnet = load_syncnet_config(REPOSITORY / config.data.syncnet_config_path)
            networks.syncnet = ready(StableSyncNet(build_syncnet_spec(syncnet)))
            networks.syncnet_resolution = syncnet.data.resolution
        if "lpips" in needs:
            networks.lpips = ready(VggLpips())
        if "videomae" in needs:
            networks.videomae = ready(VideoMae(build_videomae_spec(config.trepa)))
    return networks


if __name__ == "__main__":
    sys.exit(main())
