"""What the U-Net is asked in a training step: which noise, at which timestep, and what its answer is worth.

The published recipe draws timesteps evenly and mixes noise that frames share with noise of their own. The further
options help a small network to listen: the mouth's shape is settled in the noisiest steps, so they are drawn more
often, and there some windows are shown without any signal: sampling starts so, and a network that never saw it would
look for traces of the mouth in the noise rather than listen.
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
    """How windows are made noisy; the defaults are the published recipe.

    Attributes:
        mixed_noise_alpha: see `mix_noise`; None gives all frames the same noise.
        high_noise_prob: probability that a window's timestep is drawn from ``high_noise_from`` upwards.
        high_noise_from: see above.
        pure_noise_from, pure_noise_to: between these timesteps the share of windows without signal rises from 0 to 1.
        shared_noise_prob: probability that all frames of a window share one noise, as in sampling. Not for those with
            signal between ``pure_noise_from`` and ``pure_noise_to``: there it would give the mouth's movement away.
        background_weight, mouth_weight: weights of the kept region, and of the mouth inside the repainted one (1).
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
        shares = 0 <= self.high_noise_prob <= 1 and 0 <= self.shared_noise_prob <= 1
        if not shares or not 0 <= self.high_noise_from < 1000 or self.pure_noise_from >= self.pure_noise_to:
            raise ConfigError(f"Noise options: shares in [0, 1], timesteps in order and below 1000 needed, got {self}")


@dataclass(frozen=True)
class NoisyLatents:
    """A question to the network.

    Attributes:
        latents: (b, 4, f, h, w) noisy.
        noise: (b, 4, f, h, w) the noise in them.
        timesteps: (b,) int64.
        alpha: (b, 1, 1, 1, 1) alpha_cumprod of the timesteps.
        pure_noise: (b,) bool, True where the latents are bare noise.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    alpha: Tensor
    pure_noise: Tensor


def draw_noisy_latents(clean: Tensor, schedule: NoiseSchedule, options: NoiseOptions, rng: SampleRng) -> NoisyLatents:
    """Make windows noisy.

    Args:
        clean: (b, 4, f, h, w).
        schedule: gives alpha_cumprod.
        options: see there.
        rng: of the batch.

    Returns:
        ``sqrt(alpha) * clean + sqrt(1 - alpha) * noise``, or the bare noise in blind windows.
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
    """(b,) bool: which windows show noise only."""
    chance = (timesteps.float() - options.pure_noise_from) / (options.pure_noise_to - options.pure_noise_from)
    return rng.uniform() < chance


def draw_noise(clean: Tensor, timesteps: Tensor, pure_noise: Tensor, options: NoiseOptions, rng: SampleRng) -> Tensor:
    """(b, 4, f, h, w) standard normal noise, partly or wholly shared by the frames of a window."""
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


def recon_loss(
    prediction: Tensor, clean: Tensor, noisy: NoisyLatents, schedule: NoiseSchedule, weight_map: Tensor
) -> Tensor:
    """Mean squared error of the prediction, weighted by place.

    For a network that predicts clean latents, a window's error counts ``1 / (1 - alpha)``, at most 5, which is the
    error of the noise that the estimate stands for, without its pole at the clean end.

    Args:
        prediction: (b, 4, f, h, w) the network's output.
        clean: (b, 4, f, h, w).
        noisy: the question.
        schedule: says what the network predicts.
        weight_map: (h, w) weights, mean 1.
    """
    error, weights = _error(prediction, clean, noisy, schedule)
    return ((error.square() * weight_map).mean(dim=(1, 2, 3, 4)) * weights).mean()


def motion_loss(
    prediction: Tensor, clean: Tensor, noisy: NoisyLatents, schedule: NoiseSchedule, weight_map: Tensor
) -> Tensor:
    """Mean squared change of the prediction's error from frame to frame, else as `recon_loss`.

    An error that stays is a slightly wrong face, one that comes and goes is seen as flicker or as a mouth that is late.
    0 for a single frame.
    """
    error, weights = _error(prediction, clean, noisy, schedule)
    if error.shape[2] < 2:
        return error.sum() * 0
    changes = error[:, :, 1:] - error[:, :, :-1]
    return ((changes.square() * weight_map).mean(dim=(1, 2, 3, 4)) * weights).mean()


def _error(prediction: Tensor, clean: Tensor, noisy: NoisyLatents, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """(b, 4, f, h, w) what the prediction is off by, and (b,) what each window counts."""
    if schedule.prediction_type == "epsilon":
        return prediction - noisy.noise, torch.ones_like(noisy.alpha.flatten())
    return prediction - clean, 1 / (1 - noisy.alpha.flatten()).clamp(min=1 / _MAX_WEIGHT)


def loss_weight_map(mask: Tensor, options: NoiseOptions) -> Tensor:
    """Weight of each place of the latent grid, mean 1.

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
