"""The DDIM tables and steps against the published system's, and the invariants of the schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.diffusion.ddim import NoiseSchedule, clean_estimate, ddim_step
from latentsync.errors import ConfigError


@pytest.mark.parametrize("steps", [5, 7, 20, 50])
def test_tables_and_steps_equal_the_published_ones(golden: Callable[[str], Any], steps: int) -> None:
    case = golden("scheduler_ddim")
    schedule = NoiseSchedule()
    torch.testing.assert_close(schedule.alphas_cumprod, case.outputs["alphas_cumprod"], atol=1e-6, rtol=0)
    assert schedule.timesteps(steps) == case.outputs[f"timesteps_{steps}"].tolist()
    sample, eps = case.inputs["x"], case.inputs["eps"]
    for index, (alpha, alpha_prev) in enumerate(schedule.alpha_pairs(steps)):
        sample = ddim_step(sample, eps * (0.9 + 0.01 * index), alpha, alpha_prev)
    torch.testing.assert_close(sample, case.outputs[f"after_all_{steps}"], atol=case.tol["atol"], rtol=0)


def test_last_step_stops_at_timestep_zero(golden: Callable[[str], Any]) -> None:
    schedule = NoiseSchedule()
    final = schedule.alpha_pairs(20)[-1][1]
    assert final == pytest.approx(golden("scheduler_ddim").outputs["final_alpha_cumprod"].item(), abs=1e-6)


@given(steps=st.integers(1, 200))
def test_timesteps_fall_and_stay_in_range(steps: int) -> None:
    timesteps = NoiseSchedule().timesteps(steps)
    assert len(timesteps) == steps
    assert all(earlier > later for earlier, later in zip(timesteps, timesteps[1:], strict=False))
    assert timesteps[-1] >= 0 and timesteps[0] < 1000


@given(steps=st.integers(1, 999), model_steps=st.integers(1, 100))
def test_spread_timesteps_begin_where_the_models_own_do(steps: int, model_steps: int) -> None:
    schedule = NoiseSchedule()
    first = schedule.timesteps(max(steps, model_steps))[0]
    if steps > first:
        with pytest.raises(ConfigError, match=f"at most {first}"):
            schedule.spread_timesteps(steps, model_steps)
        return
    timesteps = schedule.spread_timesteps(steps, model_steps)
    assert len(timesteps) == steps and timesteps[0] == first and timesteps[-1] >= 1
    assert all(earlier > later for earlier, later in zip(timesteps, timesteps[1:]))


def test_spread_timesteps_are_even_in_the_log_of_the_signal_to_noise_ratio() -> None:
    schedule = NoiseSchedule()
    timesteps = schedule.spread_timesteps(6, 20)
    places = torch.logit(schedule.alphas_cumprod)[[*timesteps, 0]]
    assert places.diff().tolist() == pytest.approx([float(places[-1] - places[0]) / 6] * 6, rel=0.07)


@given(timestep=st.integers(0, 999), seed=st.integers(0, 100))
def test_clean_estimate_inverts_adding_noise(timestep: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    alpha = NoiseSchedule().alphas_cumprod[timestep].double()
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(clean_estimate(noisy, noise, alpha), clean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 1000"):
        NoiseSchedule().timesteps(steps)


def test_either_kind_of_prediction_gives_the_same_step() -> None:
    clean, noise = torch.randn(2, 1, 4, 3, 8, 8)
    alpha = 0.4
    sample = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
    schedules = NoiseSchedule(prediction_type="epsilon"), NoiseSchedule(prediction_type="sample")
    steps = [
        ddim_step(sample, schedule.as_noise(prediction, sample, alpha), alpha, 0.7)
        for schedule, prediction in zip(schedules, (noise, clean))
    ]
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=0)


def test_unknown_kind_of_prediction_is_refused() -> None:
    with pytest.raises(ConfigError, match="prediction_type"):
        NoiseSchedule(prediction_type="velocity")  # type: ignore[arg-type]
