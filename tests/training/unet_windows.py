"""A U-Net task on made-up windows, small enough for many steps a second."""

from typing import Any

import torch
from torch import Tensor, nn

from latentsync.data.sampling.samples import UNetBatch
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.losses.objective import Objective
from latentsync.losses.terms import MotionTerm, PixelTerm, PyramidTerm, ReconTerm, SyncTerm
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec
from latentsync.training.unet.latent_windows import WindowEncoder
from latentsync.training.unet.supervision import Supervision
from latentsync.training.unet.task import UNetTask, UNetTaskOptions, ValidationSet
from tests.models.builders import SMALL_SPEC, golden_vae, small_unet

FRAMES = 4
SIDE = 32
STAGE2 = {"sync": 0.05, "perceptual": 0.1, "pixel": 0.5}


def mask() -> Tensor:
    """(3, SIDE, SIDE): the middle of the lower half is repainted."""
    kept = torch.ones(3, SIDE, SIDE)
    kept[:, SIDE // 2 :, SIDE // 8 : -SIDE // 8] = 0
    return kept


def batch(*ids: int, paired: bool = False) -> UNetBatch:
    """Samples whose frames depend on their number alone: smooth pictures, so that there is something to learn."""
    parts = []
    for number in ids:
        draw = torch.Generator().manual_seed(number)
        coarse = torch.rand(3 * FRAMES, 3, 4, 4, generator=draw)
        smooth = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
        parts.append((255 * smooth).to(torch.uint8).unflatten(0, (3, FRAMES)))
    truth, other, reference = torch.stack(parts, dim=1)
    mels = torch.stack([torch.randn(1, 80, 13, generator=torch.Generator().manual_seed(number)) for number in ids])
    starts, keys = torch.zeros(len(ids), dtype=torch.int64), torch.tensor(ids)
    clips = [f"{number}.mp4" for number in ids]
    return UNetBatch(truth, other if paired else truth, reference, mels, clips, starts, keys, {})


def fake_audio_windows(clip: str, start: int, frames: int) -> Tensor:
    """What `ClipAudioEmbeddings.windows` gives, from the clip's name."""
    draw = torch.Generator().manual_seed(int(clip.removesuffix(".mp4")) + start)
    return torch.randn(frames, 50, SMALL_SPEC.cross_attention_dim, generator=draw)


def small_syncnet(latents: bool = False) -> StableSyncNet:
    """A SyncNet of `FRAMES` frames of 32 x 32 pixels, or of their latents, with random weights."""
    pixels, of_latents = SyncNetEncoderSpec(3 * FRAMES, (32, 64), ((4, 8), 4)), ((2, 2), 2)
    visual = SyncNetEncoderSpec(4 * FRAMES, (32, 64), of_latents) if latents else pixels
    return StableSyncNet(StableSyncNetSpec(visual, SyncNetEncoderSpec(1, (32, 64), ((10, 13), (8, 1))))).eval()


def small_task(
    weights: dict[str, float] | None = None,
    options: UNetTaskOptions | None = None,
    held_out: tuple[Any, ...] = (),
    network: nn.Module | None = None,
    kind: str = "epsilon",
) -> UNetTask:
    """A task whose losses are ``recon`` and those of ``weights``."""
    vae, kept = golden_vae(), mask()
    weights = {"recon": 1.0, **(weights or {})}
    losses: dict[str, Any] = {"recon": ReconTerm(), "sync": SyncTerm(small_syncnet(), SIDE), "pixel": PixelTerm()}
    losses |= {"motion": MotionTerm(), "perceptual": PyramidTerm()}
    supervision = Supervision(vae, Objective({name: losses[name] for name in weights}, weights))
    return UNetTask(
        network or small_unet(),
        WindowEncoder(vae, fake_audio_windows, kept),
        NoiseSchedule(prediction_type=kind),  # type: ignore[arg-type]
        supervision,
        options or UNetTaskOptions(sample_steps=2),
        ValidationSet(held_out),
    )
