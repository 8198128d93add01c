"""The denoising loop of a window as a pure function: noise and conditions in, clean latents out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from einops import repeat
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule, ddim_step
from latentsync.errors import ConfigError

Features = Literal["fresh", "keep", "reuse"]
"""What becomes of the network's deep features at a step: computed, computed and kept, or taken from the last kept."""


class NoisePredictor(Protocol):
    """What the loop needs of a network; see `latentsync.models.predictor.UNetPredictor`."""

    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        """Start on other windows: constant channels (b, 9, f, h, w) and audio windows (b, f, 50, d)."""
        ...

    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, features: Features = "fresh") -> Tensor:
        """Noisy latents (b, 4, f, h, w) at a timestep 0..999 -> the network's output, guided (b, 4, f, h, w)."""
        ...


@dataclass(frozen=True)
class WindowCondition:
    """Everything windows are conditioned on, constant over the steps.

    Attributes:
        mask: (b, 1, f, h, w), 1 = keep, 0 = repaint, on the latent grid; b windows.
        masked_latents: (b, 4, f, h, w) scaled latents of the frames with the repainted region blanked.
        ref_latents: (b, 4, f, h, w) scaled latents of the reference frames.
        audio: (b, f, 50, d) audio windows.
    """

    mask: Tensor
    masked_latents: Tensor
    ref_latents: Tensor
    audio: Tensor

    def stacked(self) -> Tensor:
        """The nine constant input channels in the order the checkpoints expect: (b, 9, f, h, w)."""
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


@torch.inference_mode()
def denoise(
    predictor: NoisePredictor,
    latents: Tensor,
    condition: WindowCondition,
    schedule: NoiseSchedule,
    options: SamplerOptions,
) -> Tensor:
    """Sample windows from noise with DDIM.

    Args:
        predictor: predicts the noise.
        latents: (b, 4, f, h, w) initial noise.
        condition: what the windows show and say.
        schedule: the training noise schedule.
        options: steps, guidance, feature cache.

    Returns:
        (b, 4, f, h, w) clean, scaled latents.
    """
    predictor.begin(condition.stacked(), condition.audio)
    steps = zip(schedule.timesteps(options.steps), schedule.alpha_pairs(options.steps))
    for index, (timestep, (alpha, alpha_prev)) in enumerate(steps):
        features = _features(index, options.cache_interval)
        noise_pred = predictor.predict(latents, timestep, options.guidance_scale, features)
        latents = ddim_step(latents, schedule.as_noise(noise_pred, latents, alpha), alpha, alpha_prev)
    return latents


def _features(index: int, cache_interval: int) -> Features:
    """What a step does with deep features when every `cache_interval`-th step computes them."""
    if cache_interval == 1:
        return "fresh"
    return "keep" if index % cache_interval == 0 else "reuse"
