"""What the U-Net is asked: the published noise by default, answers that lead back to the clean latents, weights."""

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.diffusion.ddim import NoiseSchedule, Prediction
from latentsync.diffusion.noise import mix_noise
from latentsync.errors import ConfigError
from latentsync.losses.reconstruction import denoising_loss, flicker_loss
from latentsync.training.unet.denoising import (
    NoiseOptions,
    NoisyLatents,
    denoising_target,
    draw_noise,
    draw_noisy_latents,
    draw_pure_noise,
    draw_timesteps,
    loss_weight_map,
)
from tests.golden_files import load_golden

CPU = torch.device("cpu")
LISTENING = NoiseOptions(high_noise_prob=0.5, high_noise_from=700, pure_noise_from=640, pure_noise_to=960)
FLAT = torch.ones(4, 4)


def recon_loss(prediction, clean, noisy, schedule, weight_map):
    target, weights = denoising_target(clean, noisy, schedule)
    return denoising_loss(prediction - target, weight_map, weights)


def motion_loss(prediction, clean, noisy, schedule, weight_map):
    target, weights = denoising_target(clean, noisy, schedule)
    return flicker_loss(prediction - target, weight_map, weights)


def draws_of(count: int, seed: int = 1) -> SampleRng:
    return SampleRng(seed, torch.arange(count), CPU)


class GivenDraws(SampleRng):
    """Hands out the tensors it is given instead of drawing."""

    def __init__(self, *numbers: torch.Tensor) -> None:
        super().__init__(0, torch.zeros(1, dtype=torch.int64), CPU)
        self.numbers = list(numbers)

    def uniform(self) -> torch.Tensor:
        return self.numbers.pop(0)

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        number = self.numbers.pop(0)
        assert number.shape[1:] == shape
        return number


@pytest.mark.parametrize("name", ["mixed_noise_a1.0", "mixed_noise_a0.5"])
def test_mixed_noise_is_the_published_one(name: str) -> None:
    case = load_golden(name)
    shared, individual = (case.inputs[key] for key in ("shared_raw", "individual_raw"))
    alpha = float(case.attrs["alpha"])
    pure_noise, timesteps = torch.zeros(len(shared), dtype=torch.bool), torch.zeros(len(shared), dtype=torch.int64)
    given_draws = GivenDraws(shared[:, :, :1], individual)
    found = draw_noise(individual, timesteps, pure_noise, NoiseOptions(mixed_noise_alpha=alpha), given_draws)
    case.check("noise", found)


def test_without_mixing_all_frames_share_one_draw() -> None:
    clean = torch.zeros(2, 4, 5, 4, 4)
    noisy = draw_noisy_latents(clean, NoiseSchedule(), NoiseOptions(mixed_noise_alpha=None), draws_of(2))
    assert torch.equal(noisy.noise, noisy.noise[:, :, :1].expand_as(clean))
    assert noisy.noise[0].ne(noisy.noise[1]).any() and noisy.noise[0, 0, 0].unique().numel() > 1


def test_defaults_are_the_published_recipe() -> None:
    count, schedule = 400, NoiseSchedule()
    clean = torch.randn(count, 4, 2, 2, 2)
    noisy = draw_noisy_latents(clean, schedule, NoiseOptions(), draws_of(count))
    # Even timesteps, one per window, and no window without signal.
    assert 0 <= int(noisy.timesteps.min()) < 20 and 980 < int(noisy.timesteps.max()) <= 999
    assert noisy.timesteps.double().mean().item() == pytest.approx(499.5, abs=4 * 289 / count**0.5)
    assert not noisy.pure_noise.any()
    assert torch.equal(noisy.alpha.flatten(), schedule.alphas_cumprod[noisy.timesteps])
    expected = noisy.alpha.sqrt() * clean + (1 - noisy.alpha).sqrt() * noisy.noise
    torch.testing.assert_close(noisy.latents, expected, atol=1e-6, rtol=0)
    # Equal parts of common and own noise: neighbouring frames correlate by a half.
    first, second = noisy.noise[:, :, 0].flatten(), noisy.noise[:, :, 1].flatten()
    assert (first * second).mean().item() == pytest.approx(0.5, abs=0.05)
    assert noisy.noise.std().item() == pytest.approx(1.0, abs=0.03)
    weights = loss_weight_map((torch.rand(32, 32) > 0.5).float(), NoiseOptions())
    assert torch.equal(weights, torch.ones(32, 32))
    answer = torch.randn_like(clean)
    loss = recon_loss(answer, clean, noisy, schedule, torch.ones(2, 2))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(answer, noisy.noise))


@given(st.integers(0, 2**20), st.integers(1, 3))
def test_noise_of_a_window_does_not_depend_on_its_neighbours(first: int, others: int) -> None:
    options = NoiseOptions(high_noise_prob=0.5, pure_noise_from=640, pure_noise_to=960, shared_noise_prob=0.5)
    clean = torch.randn(1 + others, 4, 3, 2, 2)
    ids = torch.arange(first, first + 1 + others)
    together = draw_noisy_latents(clean, NoiseSchedule(), options, SampleRng(7, ids, CPU))
    alone = draw_noisy_latents(clean[1:2], NoiseSchedule(), options, SampleRng(7, ids[1:2], CPU))
    for name in ("latents", "noise", "timesteps", "alpha", "pure_noise"):
        torch.testing.assert_close(getattr(alone, name), getattr(together, name)[1:2], atol=1e-6, rtol=0)


@given(st.integers(0, 999), st.sampled_from(["epsilon", "sample"]))
def test_perfect_prediction_of_either_kind_is_the_clean_latents(timestep: int, kind: Prediction) -> None:
    schedule = NoiseSchedule(prediction_type=kind)
    clean = torch.randn(3, 4, 2, 4, 4, dtype=torch.float64)
    numbers = torch.full((3,), (timestep + 0.5) / 1000)
    given_draws = GivenDraws(torch.ones(3), numbers, torch.ones(3), *torch.randn(2, 3, 4, 2, 4, 4, dtype=torch.float64))
    given_draws.numbers[3] = given_draws.numbers[3][:, :, :1]
    noisy = draw_noisy_latents(clean, schedule, NoiseOptions(), given_draws)
    assert noisy.timesteps.tolist() == [timestep] * 3
    perfect = noisy.noise if kind == "epsilon" else clean
    estimate = schedule.as_clean(perfect, noisy.latents, noisy.alpha)
    # alpha is single precision, and divides by 0.068 at the noisy end.
    torch.testing.assert_close(estimate, clean, atol=1e-5, rtol=0)
    assert recon_loss(perfect, clean, noisy, schedule, FLAT).item() == 0


def test_timesteps_favour_the_noisy_end_and_blindness_grows() -> None:
    rng = draws_of(6000)
    timesteps = draw_timesteps(LISTENING, rng)
    assert 0 <= int(timesteps.min()) and int(timesteps.max()) == 999
    assert (timesteps >= 700).float().mean().item() == pytest.approx(0.5 + 0.5 * 0.3, abs=0.025)
    pure_noise = draw_pure_noise(timesteps, LISTENING, rng)
    assert not pure_noise[timesteps < LISTENING.pure_noise_from].any()
    assert pure_noise[timesteps >= LISTENING.pure_noise_to].all()
    middle = (timesteps > 770) & (timesteps < 830)
    assert pure_noise[middle].float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_blind_windows_show_the_bare_noise() -> None:
    clean = torch.randn(64, 4, 3, 4, 4)
    noisy = draw_noisy_latents(clean, NoiseSchedule(), LISTENING, draws_of(64))
    assert 5 < int(noisy.pure_noise.sum()) < 59
    for latents, noise, pure_noise in zip(noisy.latents, noisy.noise, noisy.pure_noise):
        assert torch.equal(latents, noise) == bool(pure_noise)


def test_shared_noise_never_betrays_the_movement() -> None:
    options = NoiseOptions(shared_noise_prob=1.0, pure_noise_from=640, pure_noise_to=960)
    timesteps, pure_noise = torch.tensor([100, 800, 800, 639]), torch.tensor([False, False, True, False])
    noise = draw_noise(torch.zeros(4, 4, 5, 2, 2), timesteps, pure_noise, options, draws_of(4))
    assert [bool((window == window[:, :1]).all()) for window in noise] == [True, False, True, True]
    own = draw_noise(torch.zeros(4, 4, 5, 2, 2), timesteps, pure_noise, NoiseOptions(), draws_of(4))
    assert torch.equal(noise[1], own[1])


@pytest.mark.parametrize(("alpha", "weight"), [(0.001, 1 / 0.999), (0.5, 2.0), (0.99, 5.0)])
def test_errors_of_clean_latents_count_as_errors_of_the_noise_would(alpha: float, weight: float) -> None:
    clean = torch.randn(2, 4, 2, 4, 4)
    alphas = torch.full((2, 1, 1, 1, 1), alpha)
    noisy = NoisyLatents(clean, clean, torch.zeros(2).long(), alphas, torch.zeros(2).bool())
    schedule = NoiseSchedule(prediction_type="sample")
    loss = recon_loss(clean + 0.1, clean, noisy, schedule, FLAT)
    assert loss.item() == pytest.approx(0.01 * weight, rel=1e-3)


def test_places_count_as_they_are_weighted() -> None:
    clean = torch.zeros(1, 4, 1, 4, 4)
    noisy = draw_noisy_latents(clean, NoiseSchedule(), NoiseOptions(), draws_of(1))
    weight_map = torch.zeros(4, 4)
    weight_map[1, 2] = 16.0
    answer = noisy.noise.clone()
    answer[..., 0, 0] += 3
    assert recon_loss(answer, clean, noisy, NoiseSchedule(), weight_map).item() == 0
    answer[..., 1, 2] += 0.5
    assert recon_loss(answer, clean, noisy, NoiseSchedule(), weight_map).item() == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_only_errors_that_change_count_as_motion(kind: Prediction) -> None:
    clean = torch.randn(2, 4, 3, 4, 4)
    alphas = torch.full((2, 1, 1, 1, 1), 0.5)
    noisy = NoisyLatents(clean, torch.randn_like(clean), torch.zeros(2).long(), alphas, torch.zeros(2).bool())
    schedule = NoiseSchedule(prediction_type=kind)
    right, weight = (noisy.noise, 1) if kind == "epsilon" else (clean, 2)
    assert motion_loss(right + 0.3, clean, noisy, schedule, FLAT).item() == pytest.approx(0, abs=1e-9)
    restless = right.clone()
    restless[:, :, 1] += 0.3
    expected = pytest.approx(0.09 * weight, rel=1e-4)
    assert motion_loss(restless, clean, noisy, schedule, FLAT).item() == expected
    single = NoisyLatents(clean[:, :, :1], clean[:, :, :1], noisy.timesteps, alphas, noisy.pure_noise)
    assert motion_loss(right[:, :, :1] + 1, clean[:, :, :1], single, schedule, FLAT).item() == 0


def test_importance_is_greatest_at_the_mouth_and_least_outside() -> None:
    mask = torch.ones(32, 32)
    mask[12:30, 2:30] = 0
    weights = loss_weight_map(mask, NoiseOptions(background_weight=0.1, mouth_weight=3.0))
    assert weights.mean().item() == pytest.approx(1.0)
    mouth, cheek, outside = weights[20, 16], weights[14, 3], weights[0, 0]
    assert (mouth / cheek).item() == pytest.approx(3.0)
    assert (outside / cheek).item() == pytest.approx(0.1)
    assert rearrange(weights, "h w -> (h w)").unique().numel() == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"pure_noise_from": 900, "pure_noise_to": 800},
        {"high_noise_prob": 1.5},
        {"shared_noise_prob": -1},
        {"high_noise_from": 1000},
        {"high_noise_from": -1},
    ],
)
def test_impossible_options_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="Noise options"):
        NoiseOptions(**wrong)


def test_mixing_is_that_of_inference() -> None:
    clean = torch.zeros(2, 4, 3, 2, 2)
    rng = draws_of(2)
    common, own = rng.normal((4, 1, 2, 2)), rng.normal((4, 3, 2, 2))
    found = draw_noise(clean, torch.zeros(2).long(), torch.zeros(2).bool(), NoiseOptions(), draws_of(2))
    assert torch.equal(found, mix_noise(common.expand_as(clean), own, 1.0))
