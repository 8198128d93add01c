"""Input and target of a denoising step: timesteps, noise, and the weight of the error.

The published recipe draws timesteps uniformly and mixes noise shared by all frames with per-frame noise. The further
options make a small network rely on the audio: the shape of the mouth is decided at the noisiest timesteps, so these
are drawn more often, and some of their windows are pure noise, as at the start of sampling. A network that never trains
on pure noise looks for traces of the mouth in the latents instead of using the audio.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.noise import mix_noise
from latentsync.errors import ConfigError

_MAX_WEIGHT = 5.0  # of a timestep's error, when clean latents are predicted


@dataclass(frozen=True)
class NoiseOptions:
    """How noise is added to windows; the defaults are the published recipe.

    Attributes:
        mixed_noise_alpha: see `mix_noise`; None gives all frames the same noise.
        high_noise_prob: probability that a window's timestep is drawn from ``high_noise_from`` upwards.
        high_noise_from: see above.
        pure_noise_from, pure_noise_to: between these timesteps the fraction of pure-noise windows rises from 0 to 1.
        shared_noise_prob: probability that all frames of a window share one noise, as in sampling. Windows with signal
            between ``pure_noise_from`` and ``pure_noise_to`` are excluded: shared noise would leak the mouth motion.
        background_weight, mouth_weight: weights of the kept region, and of the mouth within the repainted one (1).
    """

    mixed_noise_alpha: float | None = 1.0
    high_noise_prob: float = 0.0
    high_noise_from: int = 700
    pure_noise_from: int = 1000
    pure_noise_to: int = 1001
    shared_noise_prob: float = 0.0
    background_weight: float = 1.0
    mouth_weight: float = 1.0

    def __post_init__(self) -> None:
        probs = 0 <= self.high_noise_prob <= 1 and 0 <= self.shared_noise_prob <= 1
        if not probs or not 0 <= self.high_noise_from < 1000 or self.pure_noise_from >= self.pure_noise_to:
            raise ConfigError(
                f"Noise options: probabilities in [0, 1] and ordered timesteps below 1000 are needed, got {self}"
            )


@dataclass(frozen=True)
class NoisyLatents:
    """Noisy windows, the input of the network.

    Attributes:
        latents: (b, 4, f, h, w) noisy.
        noise: (b, 4, f, h, w) the noise in them.
        timesteps: (b,) int64.
        alpha: (b, 1, 1, 1, 1) alpha_cumprod of the timesteps.
        pure_noise: (b,) bool, True where the latents are pure noise.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    alpha: Tensor
    pure_noise: Tensor


def draw_noisy_latents(clean: Tensor, schedule: NoiseSchedule, options: NoiseOptions, rng: SampleRng) -> NoisyLatents:
    """Add noise to windows.

    Args:
        clean: (b, 4, f, h, w).
        schedule: gives alpha_cumprod.
        options: see there.
        rng: of the batch.

    Returns:
        ``sqrt(alpha) * clean + sqrt(1 - alpha) * noise``, or pure noise where drawn so.
    """
    timesteps = draw_timesteps(options, rng)
    alpha = rearrange(schedule.alphas_cumprod.to(clean.device)[timesteps], "b -> b 1 1 1 1")
    pure_noise = draw_pure_noise(timesteps, options, rng)
    noise = draw_noise(clean, timesteps, pure_noise, options, rng)
    mixed = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    return NoisyLatents(torch.where(_over_windows(pure_noise), noise, mixed), noise, timesteps, alpha, pure_noise)


def draw_timesteps(options: NoiseOptions, rng: SampleRng) -> Tensor:
    """(b,) int64 timesteps 0..999, one per window."""
    start = torch.where(rng.uniform() < options.high_noise_prob, float(options.high_noise_from), 0.0)
    return (start + rng.uniform() * (1000 - start)).long().clamp(max=999)


def draw_pure_noise(timesteps: Tensor, options: NoiseOptions, rng: SampleRng) -> Tensor:
    """(b,) bool: which windows are pure noise."""
    chance = (timesteps.float() - options.pure_noise_from) / (options.pure_noise_to - options.pure_noise_from)
    return rng.uniform() < chance


def draw_noise(clean: Tensor, timesteps: Tensor, pure_noise: Tensor, options: NoiseOptions, rng: SampleRng) -> Tensor:
    """(b, 4, f, h, w) standard normal noise, partly or fully shared by the frames of a window."""
    _, channels, frames, height, width = clean.shape
    common = rng.normal((channels, 1, height, width)).expand_as(clean)
    if options.mixed_noise_alpha is None:
        return common
    noise = mix_noise(common, rng.normal((channels, frames, height, width)), options.mixed_noise_alpha)
    if options.shared_noise_prob <= 0:
        return noise
    chosen = rng.uniform() < options.shared_noise_prob
    shared = chosen & (pure_noise | (timesteps < options.pure_noise_from))
    return torch.where(_over_windows(shared), common, noise)


def denoising_target(clean: Tensor, noisy: NoisyLatents, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """What the network should predict, and the weight of each window's squared error.

    For a network that predicts clean latents, a window counts ``1 / (1 - alpha)``, at most 5: the error of the noise
    that the estimate implies, without its pole at the clean end.

    Args:
        clean: (b, 4, f, h, w).
        noisy: input of the network.
        schedule: says what the network predicts.

    Returns:
        (b, 4, f, h, w) target, (b,) weights.
    """
    alpha = noisy.alpha.flatten()
    if schedule.prediction_type == "epsilon":
        return noisy.noise, torch.ones_like(alpha)
    return clean, 1 / (1 - alpha).clamp(min=1 / _MAX_WEIGHT)


def loss_weight_map(mask: Tensor, options: NoiseOptions) -> Tensor:
    """Weight of each position of the latent grid, mean 1.

    Args:
        mask: (h, w), 1 = keep, 0 = repaint.
        options: see there.
    """
    height, width = mask.shape
    weight = torch.where(mask > 0.5, options.background_weight, 1.0)
    rows, columns = slice(round(0.5 * height), round(0.92 * height)), slice(round(0.25 * width), round(0.75 * width))
    weight[rows, columns] *= torch.where(mask[rows, columns] > 0.5, 1.0, options.mouth_weight)
    return weight / weight.mean()


def _over_windows(flags: Tensor) -> Tensor:
    return rearrange(flags, "b -> b 1 1 1 1")
