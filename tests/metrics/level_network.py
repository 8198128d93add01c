"""A SyncNet that needs no training, comparing brightness with loudness over time, and clips for it."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.video_writer import VideoWriter
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.synthetic.clip import write_wav

FRAMES = 16


class LevelEncoder(nn.Module):
    """Embeds a window as one level per frame: the brightness of the images, or the loudness of the audio."""

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape[1] == 1:
            columns = torch.arange(inputs.shape[-1]) * 25 // 80
            levels = torch.stack([inputs[..., columns == frame].mean((1, 2, 3)) for frame in range(FRAMES)], 1)
        else:
            levels = inputs.unflatten(1, (FRAMES, 3)).mean((2, 3, 4))
        levels = levels - levels.mean(1, keepdim=True)
        return nn.functional.normalize(torch.cat([levels, -levels], 1).relu(), dim=1)


class LevelNetwork(nn.Module):
    """A SyncNet without trained weights, whose similarity is that of brightness and loudness over time."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(visual_encoder=SimpleNamespace(in_channels=3 * FRAMES))
        self.visual_encoder, self.audio_encoder = LevelEncoder(), LevelEncoder()
        self.weight = nn.Parameter(torch.zeros(1))


def level_meter(batch_size: int = 16) -> SyncMeter:
    return SyncMeter(cast(StableSyncNet, LevelNetwork()), batch_size=batch_size)


def write_pulsing(path: Path, seed: int, frames: int = 70) -> Path:
    """Write a clip of noise whose brightness follows its loudness."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 1, frames)
    noise = rng.normal(size=frames * 640) * np.repeat(10 ** (2 * levels - 3), 640)
    write_wav(path.with_suffix(".wav"), noise.astype(np.float32))
    with VideoWriter(path, 32, 32, Fraction(25), AudioTrack(path.with_suffix(".wav"))) as writer:
        for level in levels:
            writer.write(np.full((32, 32, 3), round(20 + 200 * level), np.uint8))
    return path
