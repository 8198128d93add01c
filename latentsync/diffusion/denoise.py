"""The denoising loop of a window as a pure function: noise and conditions in, clean latents out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from einops import repeat
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.solvers import Estimate, Solver, SolverState, SolverStep, find_solver
from latentsync.diffusion.step_plan import FeatureCacheMode, PlannedStep, plan_steps
from latentsync.errors import ConfigError


class NoisePredictor(Protocol):
    """The network as the sampling loop calls it; see `latentsync.backends.predictor.UNetPredictor`."""

    def begin(self, conditioning: Tensor, audio: Tensor) -> None:
        """Start on new windows: conditioning channels (b, 9, f, h, w) and audio windows (b, f, 50, d)."""
        ...

    def predict(
        self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode = "fresh"
    ) -> Tensor:
        """Noisy latents (b, 4, f, h, w) at a timestep 0..999 -> the network's output, guided (b, 4, f, h, w)."""
        ...


@dataclass(frozen=True)
class WindowCondition:
    """Everything that windows are conditioned on, constant over the steps.

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

    @staticmethod
    def joined(windows: Sequence[WindowCondition]) -> WindowCondition:
        """Windows of one length as one batch, in order."""
        parts = ([getattr(window, name) for window in windows] for name in WindowCondition.__dataclass_fields__)
        return WindowCondition(*(torch.cat(part) for part in parts))


@dataclass(frozen=True)
class SamplerOptions:
    """How a window is sampled.

    Attributes:
        steps: number of steps.
        guidance_scale: 1 takes the prediction with audio; above 1 pushes away from the zero-audio prediction and
            doubles the work. The published range is 1 to 3.
        cache_interval: every how many steps the deep U-Net layers are computed; 1 computes them always.
        published: as the published system does, sample the conditioning latents from the encoder's distribution
            (otherwise its mean is taken, the same for every window) and keep the decoder's colors.
        solver: "ddim", as published, "dpm++" or "unipc", which need fewer steps, or any other registered name.
        guidance_interval: fractions of the steps between which guidance is applied, 0 = noisiest, 1 = cleanest.
        model_steps: the number of steps that the model is usually sampled with. Solvers other than DDIM start at the
            noise level at which that many DDIM steps start, however few they take; None takes ``steps``.
    """

    steps: int = 20
    guidance_scale: float = 1.5
    cache_interval: int = 1
    published: bool = False
    solver: str = "ddim"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    model_steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.model_steps is not None and self.model_steps < 1):
            raise ConfigError(f"Inference steps: got {self.steps} (model: {self.model_steps}), expected at least 1")
        find_solver(self.solver)
        low, high = interval = tuple(self.guidance_interval)
        object.__setattr__(self, "guidance_interval", interval)  # a list from YAML would have no hash
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"Guidance interval: got {low} to {high}, expected rising fractions of the steps between 0 and 1"
            )
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
        generator: used once; its device is the result's.
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
    """Sample windows from noise.

    Args:
        predictor: predicts the noise.
        latents: (b, 4, f, h, w) initial noise.
        condition: frames and audio of the windows.
        schedule: the training noise schedule.
        options: solver, steps, guidance, feature cache.

    Returns:
        (b, 4, f, h, w) clean, scaled latents.
    """
    predictor.begin(condition.stacked(), condition.audio)
    solver, state = find_solver(options.solver), SolverState()
    levels, steps = _solver_steps(schedule, options, solver)
    for planned, level, step in zip(_plan(schedule, options, solver), levels, steps):
        output = predictor.predict(latents, planned.timestep, planned.guidance_scale, planned.cache_mode)
        latents, state = step(latents, Estimate(schedule, output, latents, level), state)
    return latents


def plan_window(schedule: NoiseSchedule, options: SamplerOptions) -> tuple[PlannedStep, ...]:
    """Every network call that a window takes."""
    return _plan(schedule, options, find_solver(options.solver))


@cache
def _plan(schedule: NoiseSchedule, options: SamplerOptions, solver: Solver) -> tuple[PlannedStep, ...]:
    """The calls with a solver, which the caller looks up: a name may be registered again."""
    if solver.leading_timesteps:
        timesteps = schedule.timesteps(options.steps)
    else:
        timesteps = schedule.spread_timesteps(options.steps, options.model_steps or options.steps)
    return plan_steps(timesteps, options.guidance_scale, options.guidance_interval, options.cache_interval)


@cache
def _solver_steps(
    schedule: NoiseSchedule, options: SamplerOptions, solver: Solver
) -> tuple[list[float], tuple[SolverStep, ...]]:
    """The noise levels of the steps, including the one where the last step ends, and the steps between them."""
    plan = _plan(schedule, options, solver)
    alphas_cumprod = schedule.alphas_cumprod.tolist()
    levels = [alphas_cumprod[step.timestep] for step in plan]
    levels.append(schedule.alpha_pairs(options.steps)[-1][1] if solver.leading_timesteps else alphas_cumprod[0])
    restarts = [index for index, step in enumerate(plan) if step.guidance_changes]
    return levels, solver.steps(levels, restarts)
