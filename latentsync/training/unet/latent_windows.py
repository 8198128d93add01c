"""From windows of frames to U-Net inputs: latents of the ground-truth, masked and reference faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentsync.data.sampling.samples import UNetBatch
from latentsync.models.vae import decode_latents, encode_latents

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

AudioWindowLookup = Callable[[str, int, int], Tensor]
"""(clip, first frame, frames) -> (f, 50, d) audio windows of a clip."""


@dataclass(frozen=True)
class LatentWindows:
    """Windows encoded for the U-Net, on the device.

    Attributes:
        clean: (b, 4, f, h, w) scaled latents of the true faces.
        masked, reference: (b, 4, f, h, w) those of the source faces with the repainted region blanked, and of the
            reference faces.
        audio: (b, f, 50, d) audio windows.
        mel: (b, 1, 80, m) SyncNet mel.
        gt_pixel_values: (b, 3, f, R, R) the true faces in [-1, 1]; None where only their latents are kept.
        sample_ids: (b,) int64 on the CPU, see `latentsync.data.sampling.samples.SampleKey`.
    """

    clean: Tensor
    masked: Tensor
    reference: Tensor
    audio: Tensor
    mel: Tensor
    gt_pixel_values: Tensor | None
    sample_ids: Tensor

    def conditions(self, mask: Tensor) -> Tensor:
        """The nine constant channels (b, 9, f, h, w): mask (1, h, w), masked and reference latents."""
        mask_channel = repeat(mask, "1 h w -> b 1 f h w", b=len(self.clean), f=self.clean.shape[2])
        return torch.cat([mask_channel.to(self.masked), self.masked, self.reference], dim=1)

    def first(self, count: int) -> LatentWindows:
        """The first ``count`` windows."""
        pixels = None if self.gt_pixel_values is None else self.gt_pixel_values[:count]
        clean, masked, reference = self.clean[:count], self.masked[:count], self.reference[:count]
        audio, mel = self.audio[:count], self.mel[:count]
        return LatentWindows(clean, masked, reference, audio, mel, pixels, self.sample_ids[:count])


@dataclass
class WindowEncoder:
    """Makes `LatentWindows` of a batch of frames.

    Attributes:
        vae: frozen; its device and dtype are those of the encoding.
        audio: features of the speech.
        mask: (3, R, R), 1 = keep.
        chunk_size: frames encoded at a time.
    """

    vae: AutoencoderKL
    audio: AudioWindowLookup
    mask: Tensor
    chunk_size: int = 8

    def to(self, device: torch.device) -> None:
        """Move the networks."""
        self.vae.to(device)
        self.mask = self.mask.to(device)

    @torch.no_grad()
    def __call__(self, batch: UNetBatch) -> LatentWindows:
        """Encode the posterior's mean; the true faces are encoded once where they are the source as well."""
        pixels = self._pixels(batch.gt_frames)
        paired = batch.source_frames is not batch.gt_frames
        source = self._pixels(batch.source_frames) if paired else pixels
        frames = batch.gt_frames.shape[1]
        starts = batch.starts.tolist()
        windows = [self.audio(clip, start, frames) for clip, start in zip(batch.clips, starts, strict=True)]
        device = self.mask.device
        return LatentWindows(
            clean=self._encode(pixels),
            masked=self._encode(source * self.mask),
            reference=self._encode(self._pixels(batch.ref_frames)),
            audio=torch.stack(windows).to(device, torch.float32),
            mel=batch.mel.to(device, non_blocking=True),
            gt_pixel_values=rearrange(pixels, "b f c h w -> b c f h w"),
            sample_ids=batch.sample_ids,
        )

    def _pixels(self, frames: Tensor) -> Tensor:
        """(b, f, 3, R, R) uint8 -> float32 in [-1, 1] on the device."""
        return frames.to(self.mask.device, non_blocking=True).float() / 127.5 - 1

    def _encode(self, pixels: Tensor) -> Tensor:
        flat = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.dtype)
        latents = encode_latents(self.vae, flat, None, self.chunk_size).float()
        return rearrange(latents, "(b f) c h w -> b c f h w", b=len(pixels))


def decode_windows(vae: AutoencoderKL, latents: Tensor, chunk_size: int) -> Tensor:
    """Decode with a gradient, holding the activations of one chunk of frames only.

    Args:
        vae: frozen.
        latents: (b, 4, f, h, w) scaled.
        chunk_size: frames decoded at a time.

    Returns:
        (b, 3, f, 8h, 8w) float32, about [-1, 1].
    """
    flat = rearrange(latents, "b c f h w -> (b f) c h w").to(vae.dtype)
    parts = [checkpoint(decode_latents, vae, part, chunk_size, use_reentrant=False) for part in flat.split(chunk_size)]
    return rearrange(torch.cat(parts).float(), "(b f) c h w -> b c f h w", b=len(latents))
