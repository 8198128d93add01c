"""The U-Net's task: noisy latents, and the weighted error of what they are cleaned to.

Two things beyond the textbook make few-step sampling follow the speech. Errors are those of the clean estimate,
whatever the network gives, weighted as for velocities (``1 / (1 - abar)``). And at the noisiest timesteps part of the
windows show noise without any signal: sampling starts so, and a network that never saw it would look for traces of the
mouth in the noise rather than listen.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.errors import ConfigError


@dataclass(frozen=True)
class NoiseOptions:
    """How windows are made noisy.

    Attributes:
        mixed_noise_alpha: see `latentsync.diffusion.noise.mix_noise`.
        noisy_share: share of the windows whose timestep is drawn from ``noisy_from`` upwards, the rest from all.
        noisy_from: see above.
        blind_from, blind_to: between these timesteps the share of windows without signal rises from 0 to 1.
        shared_share: share of the windows whose frames all get the same noise, as in sampling. Not among those with
            signal between ``blind_from`` and ``blind_to``: there it would give the mouth's movement away.
        max_weight: largest weight that a timestep's error gets.
        surround_weight, mouth_weight: weights of the kept region, and of the mouth inside the repainted one (1).
    """

    mixed_noise_alpha: float = 1.0
    noisy_share: float = 0.5
    noisy_from: int = 700
    blind_from: int = 640
    blind_to: int = 960
    shared_share: float = 0.5
    max_weight: float = 5.0
    surround_weight: float = 0.1
    mouth_weight: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.noisy_share <= 1 or not 0 <= self.noisy_from < 1000 or self.blind_from >= self.blind_to:
            raise ConfigError(f"Noise options: share in [0, 1], timesteps in order and below 1000 needed, got {self}")


def draw_timesteps(count: int, options: NoiseOptions, generator: torch.Generator) -> Tensor:
    """(count,) int64 timesteps 0..999, one per window."""
    low, noisy = torch.rand((2, count), generator=generator, device=generator.device)
    start = torch.where(noisy < options.noisy_share, float(options.noisy_from), 0.0)
    return (start + low * (1000 - start)).long().clamp(max=999)


def draw_blind(timesteps: Tensor, options: NoiseOptions, generator: torch.Generator) -> Tensor:
    """(b,) bool: which windows show noise only."""
    chance = (timesteps.float() - options.blind_from) / (options.blind_to - options.blind_from)
    return torch.rand(timesteps.shape, generator=generator, device=generator.device) < chance


def share_noise(
    noise: Tensor, timesteps: Tensor, blind: Tensor, options: NoiseOptions, generator: torch.Generator
) -> Tensor:
    """Give all frames of some windows their first frame's noise, see `NoiseOptions.shared_share`.

    Args:
        noise: (b, 4, f, h, w).
        timesteps: (b,).
        blind: (b,) bool.
        options: see there.
        generator: of the choice.
    """
    chosen = torch.rand(timesteps.shape, generator=generator, device=generator.device) < options.shared_share
    shared = chosen & (blind | (timesteps < options.blind_from))
    return torch.where(rearrange(shared, "b -> b 1 1 1 1"), noise[:, :, :1], noise)


def make_noisy(clean: Tensor, noise: Tensor, alpha: Tensor, blind: Tensor) -> Tensor:
    """Noisy latents.

    Args:
        clean: (b, 4, f, h, w).
        noise: the same shape, standard normal.
        alpha: (b,) alpha_cumprod of each window's timestep.
        blind: (b,) bool: those windows get the bare noise.

    Returns:
        (b, 4, f, h, w): ``sqrt(alpha) * clean + sqrt(1 - alpha) * noise``, or the noise.
    """
    alpha = rearrange(alpha, "b -> b 1 1 1 1")
    return torch.where(rearrange(blind, "b -> b 1 1 1 1"), noise, alpha.sqrt() * clean + (1 - alpha).sqrt() * noise)


def denoising_loss(estimate: Tensor, clean: Tensor, alpha: Tensor, importance: Tensor, max_weight: float) -> Tensor:
    """Mean weighted squared error of the clean estimate.

    Args:
        estimate: (b, 4, f, h, w) the clean latents that the network's output stands for.
        clean: (b, 4, f, h, w).
        alpha: (b,) alpha_cumprod of each window's timestep; windows weigh ``1 / (1 - alpha)``, at most ``max_weight``.
        importance: (h, w) weight of each place.
        max_weight: see above.
    """
    error = ((estimate - clean).square() * importance).mean(dim=(1, 2, 3, 4))
    return (error / (1 - alpha).clamp(min=1 / max_weight)).mean()


def place_importance(mask: Tensor, options: NoiseOptions) -> Tensor:
    """Weight of each place of the latent grid, mean 1.

    Args:
        mask: (h, w), 1 = keep, 0 = repaint.
        options: see there.
    """
    height, width = mask.shape
    weight = torch.where(mask > 0.5, options.surround_weight, 1.0)
    rows, columns = slice(round(0.5 * height), round(0.92 * height)), slice(round(0.25 * width), round(0.75 * width))
    weight[rows, columns] *= torch.where(mask[rows, columns] > 0.5, 1.0, options.mouth_weight)
    return weight / weight.mean()


def alphas_at(schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
    """(b,) float32 alpha_cumprod of the timesteps, on their device."""
    return schedule.alphas_cumprod.to(timesteps.device)[timesteps]
