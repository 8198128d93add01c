"""DDIM (Song et al. 2021, https://arxiv.org/abs/2010.02502) with eta 0 on the published noise schedule.

All coefficients are Python floats computed once, so a step is two multiplications and an addition on the device and
never makes the device wait for the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from latentsync.errors import ConfigError

Prediction = Literal["epsilon", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """Scaled-linear betas: ``betas = linspace(sqrt(beta_start), sqrt(beta_end), n) ** 2``.

    steps_offset shifts the evenly spaced ("leading") inference timesteps: 20 steps give 951, 901, ..., 1.
    prediction_type says what the network gives: the noise ("epsilon", as all published ones) or the clean latents
    ("sample", which a small network learns far sooner).
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps_offset: int = 1
    prediction_type: Prediction = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in get_args(Prediction):
            known = " or ".join(get_args(Prediction))
            raise ConfigError(f"scheduler.prediction_type: got {self.prediction_type!r}, expected {known}")
        if not 0 < self.beta_start <= self.beta_end < 1 or self.num_train_timesteps < 1:
            raise ConfigError(
                f"Noise schedule: 0 < beta_start <= beta_end < 1 and at least one timestep are needed, got {self}"
            )

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Cumulative products of ``1 - beta``: (num_train_timesteps,) float32."""
        betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_timesteps) ** 2
        return torch.cumprod(1.0 - betas, dim=0)

    def timesteps(self, steps: int) -> list[int]:
        """The training timesteps visited by ``steps`` inference steps, from noisy to clean.

        Raises:
            ConfigError: steps is not in 1..num_train_timesteps.
        """
        if not 1 <= steps <= self.num_train_timesteps:
            raise ConfigError(
                f"Inference steps: got {steps}, expected 1 to {self.num_train_timesteps}; 20 is the published default"
            )
        stride = self.num_train_timesteps // steps
        last = self.num_train_timesteps - 1
        return [min(i * stride + self.steps_offset, last) for i in reversed(range(steps))]

    def spread_timesteps(self, steps: int, model_steps: int) -> list[int]:
        """Timesteps for a multistep solver: evenly spaced in the logarithm of the signal-to-noise ratio.

        Evenly spaced timesteps would end with a step over most of that range, across which such a solver has nothing
        to extrapolate from. These
        begin where ``timesteps(model_steps)`` do: the noise level at which pure noise is given to the model as usual.

        Args:
            steps: how many, all different, from noisy to clean; the level after the last is that of timestep 0.
            model_steps: number of steps that the model is usually sampled with.

        Raises:
            ConfigError: a number of steps is out of range.
        """
        first = self.timesteps(max(model_steps, steps))[0]
        if steps > first:
            raise ConfigError(f"Inference steps: got {steps}, a multistep solver takes at most {first} here")
        log_snr = torch.logit(self.alphas_cumprod.double())
        wanted = torch.linspace(float(log_snr[first]), float(log_snr[0]), steps + 1, dtype=torch.float64)
        nearest = (log_snr[:, None] - wanted[:-1]).abs().argmin(dim=0).tolist()
        chosen: list[int] = []
        for index, timestep in enumerate(nearest):
            highest = chosen[-1] - 1 if chosen else first
            chosen.append(max(min(timestep, highest), steps - index))
        return chosen

    def as_noise(self, prediction: Tensor, sample: Tensor, alpha: float) -> Tensor:
        """The noise that a network's output stands for.

        Args:
            prediction: the network's output, any shape.
            sample: the noisy latents it was given, same shape.
            alpha: alpha_cumprod of its timestep.
        """
        if self.prediction_type == "epsilon":
            return prediction
        return (sample - alpha**0.5 * prediction) / (1 - alpha) ** 0.5

    def as_clean(self, prediction: Tensor, sample: Tensor, alpha: float | Tensor) -> Tensor:
        """The clean latents that a network's output stands for; as `as_noise`, alpha may also be a tensor."""
        return clean_estimate(sample, prediction, alpha) if self.prediction_type == "epsilon" else prediction

    def alpha_pairs(self, steps: int) -> list[tuple[float, float]]:
        """(alpha_cumprod at t, alpha_cumprod at the next, cleaner t) for every inference step.

        The last step goes to timestep 0, not to a fully clean 1.0.
        """
        stride = self.num_train_timesteps // steps
        table = self.alphas_cumprod.tolist()
        return [(table[t], table[max(t - stride, 0)]) for t in self.timesteps(steps)]


def ddim_step(sample: Tensor, noise_pred: Tensor, alpha: float, alpha_prev: float) -> Tensor:
    """One deterministic DDIM step (eq. 12 with sigma 0).

    Args:
        sample: noisy latents at this step, any shape.
        noise_pred: the predicted noise, same shape.
        alpha: alpha_cumprod of this step's timestep.
        alpha_prev: alpha_cumprod of the timestep stepped to.

    Returns:
        Latents at the next, cleaner timestep, same shape and dtype.
    """
    keep = (alpha_prev / alpha) ** 0.5
    return sample * keep + noise_pred * ((1 - alpha_prev) ** 0.5 - keep * (1 - alpha) ** 0.5)


def clean_estimate(sample: Tensor, noise_pred: Tensor, alpha: float | Tensor) -> Tensor:
    """The clean latents that sample and noise imply: ``(x_t - sqrt(1 - abar) eps) / sqrt(abar)``, not clipped.

    Args:
        sample: (..., any) noisy latents.
        noise_pred: same shape.
        alpha: alpha_cumprod at the sample's timestep, a float or a tensor that broadcasts against the sample.
    """
    return (sample - (1 - alpha) ** 0.5 * noise_pred) / alpha**0.5
