"""A SyncNet with random weights, so small that clips are judged in no time."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec

CONFIG = """\
data:
  resolution: 64
  num_frames: 16
model:
  visual_encoder:
    in_channels: 48
    block_out_channels: [32, 32]
    downsample_factors: [[4, 8], 4]
  audio_encoder:
    in_channels: 1
    block_out_channels: [32, 32]
    downsample_factors: [[10, 13], [4, 2]]
"""


def write_tiny_syncnet(folder: Path) -> tuple[Path, Path]:
    """Write configuration and weights, the same at every call; returns both paths."""
    config, weights = folder / "tiny_syncnet.yaml", folder / "tiny_syncnet.safetensors"
    config.write_text(CONFIG)
    spec = StableSyncNetSpec(
        SyncNetEncoderSpec(48, (32, 32), ((4, 8), 4)), SyncNetEncoderSpec(1, (32, 32), ((10, 13), (4, 2)))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(StableSyncNet(spec).state_dict(), weights)
    return config, weights
