"""A SyncNet that needs no training: it compares how grey levels and loudness go up and down. And clips for it."""

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


class FrameReader(nn.Module):
    """Reads one number for each frame: the pictures' grey, or the loudness of the sound meanwhile."""

    def forward(self, given: Tensor) -> Tensor:
        if given.shape[1] == 1:
            columns = torch.arange(given.shape[-1]) * 25 // 80
            levels = torch.stack([given[..., columns == frame].mean((1, 2, 3)) for frame in range(FRAMES)], 1)
        else:
            levels = given.unflatten(1, (FRAMES, 3)).mean((2, 3, 4))
        levels = levels - levels.mean(1, keepdim=True)
        return nn.functional.normalize(torch.cat([levels, -levels], 1).relu(), dim=1)


class LevelNetwork(nn.Module):
    """A SyncNet without training: it compares how grey levels and loudness go up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(visual_encoder=SimpleNamespace(in_channels=3 * FRAMES))
        self.visual_encoder, self.audio_encoder = FrameReader(), FrameReader()
        self.weight = nn.Parameter(torch.zeros(1))


def level_meter(batch_size: int = 16) -> SyncMeter:
    return SyncMeter(cast(StableSyncNet, LevelNetwork()), batch_size=batch_size)


def write_pulsing(path: Path, seed: int, frames: int = 70) -> Path:
    """A clip whose grey follows the loudness of its noise."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 1, frames)
    noise = rng.normal(size=frames * 640) * np.repeat(10 ** (2 * levels - 3), 640)
    write_wav(path.with_suffix(".wav"), noise.astype(np.float32))
    with VideoWriter(path, 32, 32, Fraction(25), AudioTrack(path.with_suffix(".wav"))) as writer:
        for level in levels:
            writer.write(np.full((32, 32, 3), round(20 + 200 * level), np.uint8))
    return path
