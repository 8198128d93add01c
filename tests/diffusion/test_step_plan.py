"""What the network is asked for, step by step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import SamplerOptions, WindowCondition, denoise
from latentsync.diffusion.step_plan import FeatureCacheMode, network_calls, plan_steps

TWENTY = NoiseSchedule().timesteps(20)
SHARES = st.floats(0, 1)


class Recorder:
    """Notes what it is asked, and holds kept cache_mode as the real predictor does: with or without a guided half."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float, FeatureCacheMode]] = []
        self.kept: bool | None = None

    def begin(self, conditioning: Tensor, audio: Tensor) -> None:
        self.kept = None

    def predict(
        self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode = "fresh"
    ) -> Tensor:
        self.asked.append((timestep, guidance_scale, cache_mode))
        if cache_mode == "keep":
            self.kept = guidance_scale > 1
        assert cache_mode != "reuse" or self.kept == (guidance_scale > 1)
        return 0.1 * latents


def test_without_options_every_step_is_whole_and_guided() -> None:
    plan = plan_steps(TWENTY, 1.5)
    assert [step.timestep for step in plan] == TWENTY
    assert network_calls(plan) == {"full guided": 20}


def test_the_published_cache_computes_every_third_step() -> None:
    plan = plan_steps(TWENTY, 1.5, cache_interval=3)
    assert [index for index, step in enumerate(plan) if step.cache_mode == "keep"] == [0, 3, 6, 9, 12, 15, 18]
    assert network_calls(plan) == {"full guided": 7, "shallow guided": 13}


def test_guidance_is_given_between_two_shares_of_the_steps() -> None:
    plan = plan_steps(TWENTY, 2.0, (0.25, 0.75))
    assert [index for index, step in enumerate(plan) if step.guidance_scale == 2.0] == list(range(5, 15))
    assert {step.guidance_scale for step in plan} == {1.0, 2.0}
    assert [index for index, step in enumerate(plan) if step.guidance_changes] == [5, 15]
    assert network_calls(plan) == {"full": 10, "full guided": 10}


def test_without_guidance_the_interval_changes_nothing() -> None:
    for scale in (0.0, 1.0):
        assert plan_steps(TWENTY, scale, (0.3, 0.6), 3) == plan_steps(TWENTY, scale, cache_interval=3)


def test_features_are_kept_anew_where_guidance_ends() -> None:
    plan = plan_steps(range(6, 0, -1), 1.5, (0.0, 0.7), 2)
    assert [step.kind for step in plan] == [
        *("full guided", "shallow guided", "full guided", "shallow guided"),
        *("full", "shallow"),
    ]
    odd = plan_steps(range(6, 0, -1), 1.5, (0.0, 0.5), 3)
    assert [step.cache_mode for step in odd] == ["keep", "reuse", "reuse"] * 2


@given(shares=st.tuples(SHARES, SHARES), interval=st.integers(1, 6), steps=st.integers(1, 30))
def test_reused_features_always_fit(shares: tuple[float, float], interval: int, steps: int) -> None:
    options = SamplerOptions(
        steps, 1.5, interval, solver="dpm++", guidance_interval=(min(shares), max(shares)), model_steps=20
    )
    network, noise = Recorder(), torch.zeros(1, 4, 1, 2, 2)
    condition = WindowCondition(noise[:, :1], noise, noise, torch.zeros(1, 1, 50, 4))
    denoise(network, noise, condition, NoiseSchedule(), options)
    assert len(network.asked) == steps
    longest = 0
    for _, _, cache_mode in network.asked:
        longest = longest + 1 if cache_mode == "reuse" else 0
        assert longest < interval
