"""The U-Net's task: targets that lead back to the clean latents, and weights in the right places."""

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from latentsync.diffusion.ddim import NoiseSchedule, Prediction
from latentsync.errors import ConfigError
from latentsync.training.denoising_loss import (
    NoiseOptions,
    alphas_at,
    denoising_loss,
    draw_blind,
    draw_timesteps,
    make_noisy,
    place_importance,
    share_noise,
)


@given(st.integers(0, 999), st.sampled_from(["epsilon", "sample"]))
def test_perfect_prediction_of_either_kind_is_the_clean_latents(timestep: int, kind: Prediction) -> None:
    generator = torch.Generator().manual_seed(timestep)
    clean, noise = torch.randn((2, 3, 4, 2, 4, 4), generator=generator, dtype=torch.float64)
    schedule = NoiseSchedule(prediction_type=kind)
    alpha = alphas_at(schedule, torch.full((3,), timestep)).double()
    noisy = make_noisy(clean, noise, alpha, torch.zeros(3, dtype=torch.bool))
    estimate = schedule.as_clean(noise if kind == "epsilon" else clean, noisy, rearrange(alpha, "b -> b 1 1 1 1"))
    torch.testing.assert_close(estimate, clean, atol=1e-9, rtol=0)


def test_blind_input_tells_nothing() -> None:
    clean = torch.randn(2, 4, 3, 8, 8)
    noise = torch.randn_like(clean)
    noisy = make_noisy(clean, noise, torch.tensor([0.3, 0.3]), torch.tensor([True, False]))
    assert torch.equal(noisy[0], noise[0])
    torch.testing.assert_close(noisy[1], 0.3**0.5 * clean[1] + 0.7**0.5 * noise[1], atol=1e-6, rtol=0)


def test_timesteps_favour_the_noisy_end_and_blindness_grows() -> None:
    options, generator = NoiseOptions(), torch.Generator().manual_seed(1)
    timesteps = draw_timesteps(20000, options, generator)
    assert 0 <= int(timesteps.min()) and int(timesteps.max()) == 999
    assert (timesteps >= 700).float().mean().item() == pytest.approx(0.5 + 0.5 * 0.3, abs=0.02)
    blind = draw_blind(timesteps, options, generator)
    assert not blind[timesteps < options.blind_from].any()
    assert blind[timesteps >= options.blind_to].all()
    middle = (timesteps > 790) & (timesteps < 810)
    assert blind[middle].float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_shared_noise_never_betrays_the_movement() -> None:
    options, generator = NoiseOptions(shared_share=1.0), torch.Generator().manual_seed(0)
    noise = torch.randn(4, 4, 5, 2, 2)
    timesteps, blind = torch.tensor([100, 800, 800, 639]), torch.tensor([False, False, True, False])
    shared = share_noise(noise, timesteps, blind, options, generator)
    same = [bool((window == window[:, :1]).all()) for window in shared]
    assert same == [True, False, True, True]
    assert torch.equal(shared[1], noise[1])


def test_loss_is_zero_only_for_the_truth_and_weighs_clear_windows_up() -> None:
    clean = torch.randn(1, 4, 2, 8, 8)
    importance = torch.ones(8, 8)
    losses = [
        denoising_loss(clean + 0.1, clean, torch.tensor([alpha]), importance, 5.0).item()
        for alpha in (0.001, 0.5, 0.99)
    ]
    assert denoising_loss(clean, clean, torch.tensor([0.1]), importance, 5.0).item() == 0
    assert losses == pytest.approx([0.01 / 0.999, 0.02, 0.05], rel=1e-3)


def test_importance_is_greatest_at_the_mouth_and_least_outside() -> None:
    mask = torch.ones(32, 32)
    mask[12:30, 2:30] = 0
    importance = place_importance(mask, NoiseOptions())
    assert importance.mean().item() == pytest.approx(1.0)
    mouth, cheek, outside = importance[20, 16], importance[14, 3], importance[0, 0]
    assert (mouth / cheek).item() == pytest.approx(3.0)
    assert (outside / cheek).item() == pytest.approx(0.1)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError):
        NoiseOptions(blind_from=900, blind_to=800)
