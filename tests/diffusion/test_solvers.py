"""The multistep solvers against diffusers' and against a sampling equation whose solution is known."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import SamplerOptions, WindowCondition, denoise
from latentsync.diffusion.solvers import (
    SOLVERS,
    DdimStep,
    MultistepStep,
    SolverState,
    WeightedSum,
    multistep,
    multistep_table,
    register_solver,
    solver_names,
)
from latentsync.diffusion.step_plan import FeatureCacheMode
from latentsync.errors import ConfigError
from latentsync.pipelines.job import LipsyncJob

NOISE = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
PUBLISHED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "solver_order": 2,
    "final_sigmas_type": "sigma_min",  # ends at timestep 0, as the published DDIM does
}


class MixtureDenoiser:
    """The exact network for data that is a mixture of Gaussians in every single value."""

    means, spreads, shares = (-1.3, 0.2, 1.5), (0.15, 0.3, 0.2), (0.3, 0.3, 0.4)

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.scales: list[float] = []

    def begin(self, conditioning: Tensor, audio: Tensor) -> None:
        pass

    def predict(
        self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode = "fresh"
    ) -> Tensor:
        self.scales.append(guidance_scale)
        return self.output(latents, float(self.schedule.alphas_cumprod[timestep]))

    def output(self, latents: Tensor, alpha: float) -> Tensor:
        clean, weights = torch.zeros_like(latents), torch.zeros_like(latents)
        for mean, spread, share in zip(self.means, self.spreads, self.shares):
            variance = alpha * spread**2 + 1 - alpha
            off = latents - alpha**0.5 * mean
            weight = share * torch.exp(-0.5 * off**2 / variance) / variance**0.5
            clean = clean + weight * (mean + alpha**0.5 * spread**2 / variance * off)
            weights = weights + weight
        clean = clean / weights
        if self.schedule.prediction_type == "sample":
            return clean
        return (latents - alpha**0.5 * clean) / (1 - alpha) ** 0.5


def condition() -> WindowCondition:
    other = torch.zeros_like(NOISE)
    return WindowCondition(other[:, :1], other, other, torch.zeros(1, 2, 50, 8))


def sample(schedule: NoiseSchedule, noise: Tensor = NOISE, **options: Any) -> Tensor:
    return denoise(MixtureDenoiser(schedule), noise, condition(), schedule, SamplerOptions(**options))


def diffusers_scheduler(solver: str, prediction: str) -> Any:
    if solver == "dpm++":
        return DPMSolverMultistepScheduler(**PUBLISHED, prediction_type=prediction, algorithm_type="dpmsolver++")
    return UniPCMultistepScheduler(**PUBLISHED, prediction_type=prediction, solver_type="bh2", predict_x0=True)


@pytest.mark.parametrize("steps", [1, 2, 6, 12])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_steps_equal_those_of_diffusers(solver: str, prediction: str, steps: int) -> None:
    schedule = NoiseSchedule(prediction_type=prediction)  # type: ignore[arg-type]
    timesteps = schedule.spread_timesteps(steps, 20)
    theirs = diffusers_scheduler(solver, prediction)
    theirs.set_timesteps(steps)
    theirs.timesteps = torch.tensor(timesteps)
    alphas = schedule.alphas_cumprod.double()[[*timesteps, 0]]
    theirs.sigmas = ((1 - alphas) / alphas).sqrt()
    network, expected = MixtureDenoiser(schedule), NOISE
    for timestep in theirs.timesteps:
        expected = theirs.step(network.predict(expected, int(timestep), 1.0), timestep, expected).prev_sample
    made = sample(schedule, solver=solver, steps=steps, model_steps=20, guidance_scale=1.0)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)  # diffusers computes its weights in single precision


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_either_kind_of_prediction_gives_the_same_video(solver: str) -> None:
    kinds = NoiseSchedule(prediction_type="epsilon"), NoiseSchedule(prediction_type="sample")
    noise, clean = (sample(kind, solver=solver, steps=8) for kind in kinds)
    torch.testing.assert_close(noise, clean, atol=1e-6, rtol=0)


def by_levels(count: int, first: float, last: float, corrected: bool | None) -> Tensor:
    """Solve the mixture over evenly spaced log-SNR; None takes first-order steps, which are DDIM's."""
    network = MixtureDenoiser(NoiseSchedule(prediction_type="sample"))
    ends = [math.log(level / (1 - level)) for level in (first, last)]
    places = [ends[0] + (ends[1] - ends[0]) * index / count for index in range(count + 1)]
    levels = [1 / (1 + math.exp(-place)) for place in places]
    restarts = range(count) if corrected is None else ()
    latents, state = NOISE, SolverState()
    for step, level in zip(multistep_table(levels, restarts, bool(corrected)), levels):
        latents, state = multistep(step, latents, network.output(latents, level), state)
    return latents


@pytest.mark.parametrize(("corrected", "order"), [(None, 1), (False, 2), (True, 2)])
def test_errors_fall_with_the_order_of_the_solver(corrected: bool | None, order: int) -> None:
    truth = by_levels(4000, 0.008, 0.99, False)
    errors = [(by_levels(count, 0.008, 0.99, corrected) - truth).abs().mean().item() for count in (40, 80, 160)]
    rates = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:])]
    assert min(rates) > order - 0.35


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_six_steps_come_as_near_to_a_thousand_of_ddim_as_twenty_do(solver: str) -> None:
    schedule = NoiseSchedule()
    noise = torch.randn(1, 4, 2, 32, 32, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    fine = sample(schedule, noise, steps=999, guidance_scale=1.0)

    def error(**options: Any) -> float:
        return (sample(schedule, noise, guidance_scale=1.0, **options) - fine).abs().mean().item()

    few = error(solver=solver, steps=6, model_steps=20)
    assert few < 1.3 * error(steps=20)
    assert few < 0.4 * error(steps=6)
    assert error(solver=solver, steps=20) < 0.4 * few


def test_a_window_does_not_remember_the_one_before() -> None:
    schedule = NoiseSchedule()
    network = MixtureDenoiser(schedule)
    options = SamplerOptions(steps=4, solver="unipc", guidance_scale=1.0)
    first, again = (denoise(network, NOISE, condition(), schedule, options) for _ in range(2))
    assert torch.equal(first, again)


def test_steps_do_not_look_back_over_a_restart() -> None:
    levels = [0.01, 0.1, 0.4, 0.7, 0.9, 0.99]
    whole, broken = (multistep_table(levels, restarts, corrected=True) for restarts in ((), (2,)))
    assert [len(step.predict.cleans) for step in whole] == [1, 2, 2, 2, 1]
    assert [len(step.predict.cleans) for step in broken] == [1, 2, 1, 2, 1]
    assert [step.correct and len(step.correct.cleans) for step in whole] == [None, 2, 3, 3, 3]
    assert [step.correct and len(step.correct.cleans) for step in broken] == [None, 2, None, 2, 3]


@pytest.mark.parametrize("corrected", [False, True])
def test_a_clean_estimate_that_never_changes_is_reached(corrected: bool) -> None:
    levels = [0.01, 0.1, 0.4, 0.7, 0.99]
    clean = torch.full_like(NOISE, 0.3)
    latents, state = levels[0] ** 0.5 * clean + (1 - levels[0]) ** 0.5 * NOISE, SolverState()
    for step in multistep_table(levels, corrected=corrected):
        latents, state = multistep(step, latents, clean, state)
    torch.testing.assert_close(latents, levels[-1] ** 0.5 * clean + (1 - levels[-1]) ** 0.5 * NOISE)


def test_half_precision_stays_near_single() -> None:
    schedule = NoiseSchedule()
    single, half = (
        sample(schedule, NOISE.to(dtype), solver="unipc", steps=6, model_steps=20)
        for dtype in (torch.float32, torch.float16)
    )
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), single, atol=0.05, rtol=0)


def euler(levels: Sequence[float], restarts: Collection[int]) -> list[MultistepStep]:
    """DDIM's step in terms of the clean estimate."""
    steps = []
    for level, to_level in pairwise(levels):
        keep = ((1 - to_level) / (1 - level)) ** 0.5
        steps.append(MultistepStep(WeightedSum(keep, (to_level**0.5 - keep * level**0.5,))))
    return steps


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes what a test registers as "mine"."""
    monkeypatch.setitem(SOLVERS, "mine", SOLVERS["ddim"])


@pytest.mark.usefixtures("registry")
def test_a_registered_solver_samples_and_is_a_choice_of_jobs() -> None:
    schedule = NoiseSchedule()
    register_solver("mine", euler, leading_timesteps=True)
    made = sample(schedule, solver="mine", steps=5)
    torch.testing.assert_close(made, sample(schedule, solver="ddim", steps=5), atol=1e-6, rtol=0)
    register_solver("mine", euler)  # again, with other timesteps
    assert not torch.allclose(sample(schedule, solver="mine", steps=5), made, atol=1e-3)
    paths = {"video_path": "a", "audio_path": "b", "video_out_path": "c"}
    assert LipsyncJob.from_dict({**paths, "solver": "mine"}).solver == "mine"
    assert LipsyncJob.json_schema()["properties"]["solver"]["enum"] == [*solver_names(), None]
    assert "mine" in LipsyncJob.command_line()["--solver"]["choices"]


@pytest.mark.usefixtures("registry")
def test_a_solver_may_return_any_callable_steps() -> None:
    schedule = NoiseSchedule(prediction_type="sample")
    register_solver("mine", lambda levels, restarts: [DdimStep(*pair) for pair in pairwise(levels)])
    register_solver("mine", SOLVERS["mine"].make_steps, leading_timesteps=True)
    assert torch.equal(sample(schedule, solver="mine", steps=4), sample(schedule, solver="ddim", steps=4))


@pytest.mark.usefixtures("registry")
def test_a_wrong_number_of_steps_or_a_taken_name_is_refused() -> None:
    register_solver("mine", lambda levels, restarts: euler(levels[1:], restarts))
    with pytest.raises(ConfigError, match="got 3 steps for 5 noise levels, expected 4"):
        sample(NoiseSchedule(), solver="mine", steps=4)
    for name in ("", "ddim"):
        with pytest.raises(ConfigError, match="built in are ddim, dpm"):
            register_solver(name, euler)


def test_an_unknown_solver_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"got 'heun', expected one of ddim, dpm\+\+, unipc.*; import the module"):
        SamplerOptions(solver="heun")
    with pytest.raises(ConfigError, match=r"solver: got 'heun', expected one of ddim, dpm\+\+, unipc"):
        LipsyncJob.from_dict({"video_path": "a", "audio_path": "b", "video_out_path": "c", "solver": "heun"})


def test_names_are_listed_without_importing_torch() -> None:
    code = "import sys; from latentsync.diffusion import solvers; print(solvers.solver_names(), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "('ddim', 'dpm++', 'unipc') False"
