"""The named combinations: what they ask of the network, and who overrides whom."""

from __future__ import annotations

import pytest

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import SamplerOptions, plan_window
from latentsync.diffusion.speed import SPEEDS, SamplerRequest
from latentsync.diffusion.step_plan import network_calls
from latentsync.errors import ConfigError

MILLISECONDS = {"full guided": 65, "full": 34, "shallow guided": 9, "shallow": 5}
"""Measured on one H200 for a window of the published 512 px model."""


def calls(speed: str, steps: int, guidance_scale: float) -> dict[str, int]:
    options = SamplerRequest(speed).options(steps, guidance_scale)
    return network_calls(plan_window(NoiseSchedule(), options))


def test_exact_is_what_the_model_brings() -> None:
    assert SamplerRequest().options(20, 1.5) == SamplerOptions(20, 1.5, model_steps=20)
    assert calls("exact", 20, 1.5) == {"full guided": 20}


def test_fast_takes_a_third_of_the_time() -> None:
    made = calls("fast", 20, 1.5)
    assert made == {"full guided": 5, "shallow guided": 10}


@pytest.mark.parametrize(("speed", "steps"), [("exact", 4), ("fast", 3), ("realtime", 2)])
def test_few_steps_without_guidance_reuse_nothing(speed: str, steps: int) -> None:
    assert calls(speed, 4, 1.0) == {"full": steps}


def test_realtime_leaves_time_for_everything_else() -> None:
    made = calls("realtime", 20, 1.5)
    assert made == {"full guided": 2, "shallow guided": 2, "full": 1, "shallow": 1}
    assert sum(MILLISECONDS[kind] * count for kind, count in made.items()) < 250


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 20, 50])
def test_no_speed_takes_more_steps_than_the_model(speed: str, steps: int) -> None:
    options = SamplerRequest(speed).options(steps, 1.0)
    assert 1 <= options.steps <= steps
    assert len(plan_window(NoiseSchedule(), options)) == options.steps


def test_what_is_asked_for_wins_over_the_speed() -> None:
    request = SamplerRequest(
        "realtime", 9, 2.0, solver="dpm++", cache_interval=1, guidance_interval=(0.2, 0.8), published=True
    )
    assert request.options(20, 1.5) == SamplerOptions(9, 2.0, 1, True, "dpm++", (0.2, 0.8), 20)
    assert SamplerRequest("realtime", deepcache=True).options(20, 1.5).cache_interval == 3
    assert SamplerRequest(deepcache=True, cache_interval=3).options(20, 1.5).cache_interval == 3


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SamplerRequest("warp"), "exact, fast, realtime"),
        (SamplerRequest(deepcache=True, cache_interval=2), "interval 3, but cache_interval is 2"),
        (SamplerRequest(cache_interval=0), "at least 1"),
        (SamplerRequest(solver="heun"), "ddim, dpm"),  # type: ignore[arg-type]
        (SamplerRequest(guidance_interval=(0.8, 0.2)), "0.8 to 0.2"),
        (SamplerRequest(guidance_interval=(0.0, 1.5)), "between 0 and 1"),
        (SamplerRequest(steps=0), "at least 1"),
    ],
)
def test_impossible_requests_are_refused(request_: SamplerRequest, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        request_.options(20, 1.5)
