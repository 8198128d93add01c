"""The denoising loop of one window as a pure function: noise and conditions in, clean latents out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, repeat
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule, ddim_step
from latentsync.errors import ConfigError
from latentsync.transfer import to_device


class Denoiser(Protocol):
    """What the loop needs of a U-Net; see `latentsync.models.unet.UNet3DConditionModel`."""

    def __call__(self, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor | None) -> Tensor:
        """(b, 13, f, h, w), (), (b*f, 50, d) -> predicted noise (b, 4, f, h, w)."""
        ...

    def forward_full(
        self, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As a call, and the deep features that `forward_shallow` continues from."""
        ...

    def forward_shallow(
        self, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor | None, cached: Tensor
    ) -> Tensor:
        """Predicted noise from fresh outer layers and cached deep features."""
        ...


@dataclass(frozen=True)
class WindowCondition:
    """Everything a window is conditioned on, constant over the steps.

    Attributes:
        mask: (1, 1, f, h, w), 1 = keep, 0 = repaint, on the latent grid.
        masked_latents: (1, 4, f, h, w) scaled latents of the frames with the repainted region blanked.
        ref_latents: (1, 4, f, h, w) scaled latents of the reference frames.
        audio: (f, 50, d) audio windows.
    """

    mask: Tensor
    masked_latents: Tensor
    ref_latents: Tensor
    audio: Tensor

    def stacked(self) -> Tensor:
        """The nine constant input channels in the order the checkpoints expect: (1, 9, f, h, w)."""
        return torch.cat([self.mask, self.masked_latents, self.ref_latents], dim=1)


@dataclass(frozen=True)
class SamplerOptions:
    """How a window is sampled.

    Attributes:
        steps: number of DDIM steps.
        guidance_scale: 1 follows the audio alone; above 1 pushes away from the zero-audio prediction and doubles
            the work. The published range is 1 to 3.
        cache_interval: every how many steps the deep U-Net layers are computed; 1 computes them always.
        published: as the public system does, draw the conditioning latents from the encoder's distribution (otherwise
            its mean is taken, the same for every window) and leave colours as the decoder gives them.
    """

    steps: int = 20
    guidance_scale: float = 1.5
    cache_interval: int = 1
    published: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"Inference steps: got {self.steps}, expected at least 1")
        if not 0 <= self.guidance_scale <= 20:
            raise ConfigError(f"Guidance scale: got {self.guidance_scale}, expected 0 to 20 (1.0 to 3.0 is usual)")
        if self.cache_interval < 1:
            raise ConfigError(f"Feature cache interval: got {self.cache_interval}, expected at least 1 (1 = off)")


def initial_noise(
    shape: tuple[int, int, int], num_frames: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """One draw shared by all frames, which ties the frames and the windows of a video together.

    Args:
        shape: (4, h, w) of one frame's latents.
        num_frames: f.
        generator: drawn from once; its device is the result's.
        dtype: drawn and returned in this dtype.

    Returns:
        (1, 4, f, h, w) standard normal noise, equal in every frame.
    """
    channels, height, width = shape
    noise = torch.randn((1, channels, 1, height, width), generator=generator, device=generator.device, dtype=dtype)
    return repeat(noise, "1 c 1 h w -> 1 c f h w", f=num_frames)


def apply_guidance(noise_pred: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): (2, 4, f, h, w) [zero audio, audio] -> (1, 4, f, h, w)."""
    noise_uncond, noise_audio = noise_pred.chunk(2)
    return torch.lerp(noise_uncond, noise_audio, guidance_scale)


@torch.inference_mode()
def denoise(
    unet: Denoiser, latents: Tensor, condition: WindowCondition, schedule: NoiseSchedule, options: SamplerOptions
) -> Tensor:
    """Sample one window from noise with DDIM.

    Args:
        unet: the noise predictor.
        latents: (1, 4, f, h, w) initial noise.
        condition: what the window shows and says.
        schedule: the training noise schedule.
        options: steps, guidance, feature cache.

    Returns:
        (1, 4, f, h, w) clean, scaled latents.
    """
    guided = options.guidance_scale > 1
    copies = 2 if guided else 1
    fixed = repeat(condition.stacked(), "1 c f h w -> b c f h w", b=copies)
    audio = rearrange(condition.audio, "f s d -> 1 f s d")
    if guided:
        audio = torch.cat([torch.zeros_like(audio), audio])
    timesteps = to_device(torch.tensor(schedule.timesteps(options.steps)), latents.device)
    cached: Tensor | None = None
    for index, (alpha, alpha_prev) in enumerate(schedule.alpha_pairs(options.steps)):
        sample = torch.cat([repeat(latents, "1 c f h w -> b c f h w", b=copies), fixed], dim=1)
        if options.cache_interval == 1:
            noise_pred = unet(sample, timesteps[index], audio)
        elif cached is None or index % options.cache_interval == 0:
            noise_pred, cached = unet.forward_full(sample, timesteps[index], audio)
        else:
            noise_pred = unet.forward_shallow(sample, timesteps[index], audio, cached)
        if guided:
            noise_pred = apply_guidance(noise_pred, options.guidance_scale)
        latents = ddim_step(latents, schedule.as_noise(noise_pred, latents, alpha), alpha, alpha_prev)
    return latents
