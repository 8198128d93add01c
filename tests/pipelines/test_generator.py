"""Whole windows through VAE and denoiser against the published system, with its tiny weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from latentsync.backends.predictor import UNetPredictor
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import SamplerOptions, denoise
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.pipelines.generator import DiffusionGenerator, WindowInput
from latentsync.pipelines.windows import plan_windows
from latentsync.profiling import StageClock
from tests.golden_files import Golden, load_golden

RUNS = [
    (case, run["name"])
    for case, names in {
        "sampling_f16": ("s5_g1.0_noise", "s5_g1.5_noise", "s20_g1.0_mean", "s20_g1.5_mean"),
        "sampling_f20": ("s5_g1.0_noise", "s5_g1.5_noise", "s20_g1.0_mean", "s20_g1.5_mean"),
        "sampling_f37": ("s5_g1.0_noise", "s5_g1.5_noise", "s20_g1.0_mean", "s20_g1.5_mean"),
        "deepcache_f16": ("s7_g1.0_mean_deepcache", "s20_g1.5_mean_deepcache", "s20_g1.5_mean"),
        "deepcache_f20": ("s20_g1.5_noise_deepcache",),
    }.items()
    for run in ({"name": name} for name in names)
]


def tiny_generator(case: Golden, dtype: torch.dtype = torch.float32) -> DiffusionGenerator:
    spec = UNetSpec(
        block_out_channels=tuple(case.attrs["block_out_channels"]),
        cross_attention_dim=case.attrs["cross_attention_dim"],
        norm_num_groups=case.attrs["norm_num_groups"],
    )
    unet = UNet3DConditionModel(spec).eval()
    unet.load_state_dict(load_golden(case.attrs["weights"]).weights)
    vae_weights = load_golden(case.attrs["vae_weights"])
    vae = AutoencoderKL(VaeConfig.from_mapping(vae_weights.attrs)).eval()
    vae.load_state_dict(vae_weights.weights)
    return DiffusionGenerator(UNetPredictor(unet.to(dtype)), vae.to(dtype), case.inputs["mask"], NoiseSchedule())


def sampler_of(run: dict[str, Any]) -> SamplerOptions:
    return SamplerOptions(
        steps=run["steps"],
        guidance_scale=run["guidance_scale"],
        cache_interval=run["cache_interval"] if run["deepcache"] else 1,
    )


@torch.inference_mode()
def sample_video(case: Golden, generator: DiffusionGenerator, run: dict[str, Any]) -> tuple[Tensor, list[Any]]:
    """The case's whole video in published windows -> latents (1, 4, n, h, w) and each window's condition."""
    noisy_latents = run["vae_sample"] == "noise"
    latents, conditions = [], []
    for window in plan_windows(len(case.inputs["faces"]), 16, "published"):
        span = slice(window.start, window.stop)
        eps = [case.inputs[name][span].double() if noisy_latents else None for name in ("eps_masked", "eps_ref")]
        condition = generator.condition(case.inputs["faces"][span], case.inputs["audio"][span], *eps)
        noise = case.inputs["noise"].double().expand(-1, -1, window.stop - window.start, -1, -1)
        latents.append(denoise(generator.predictor, noise, condition, generator.schedule, sampler_of(run)))
        conditions.append(condition)
    return torch.cat(latents, dim=2), conditions


@pytest.mark.parametrize(("name", "run_name"), RUNS)
def test_sampling_equals_the_published_system(name: str, run_name: str) -> None:
    """In double precision: the deepest group norms of these random weights see two values each and so act like a sign,
    which multiplies a rounding error of single precision a thousandfold. The networks alone are tested in single.
    """
    case = load_golden(name)
    run = next(run for run in case.attrs["runs"] if run["name"] == run_name)
    generator = tiny_generator(case, torch.float64)
    latents, conditions = sample_video(case, generator, run)
    case.check("mask_latents", torch.cat([condition.mask for condition in conditions], dim=2))
    tolerance = case.tol["atol_masked_ref_latents"]
    for kind in ("masked_latents", "ref_latents"):
        made = torch.cat([getattr(condition, kind) for condition in conditions], dim=2)
        case.check(f"{run['vae_sample']}.{kind}", made, tolerance)
    short = run["steps"] <= 10
    case.check(f"{run_name}.latents", latents, case.tol["atol_up_to_10_steps" if short else "atol_more_steps"])
    if not short:
        mean = (latents - case.outputs[f"{run_name}.latents"]).abs().mean()
        assert mean <= case.tol["mean_abs_more_steps"]
    if run["pasted"]:
        frames = case.attrs["pasted_frames"]
        codes = rearrange(latents, "1 c f h w -> f c h w")[frames]
        generator.start(0, SamplerOptions(published=True), StageClock(torch.device("cpu")))
        pasted = generator.decode(codes, case.inputs["faces"][frames])
        case.check(f"{run_name}.pasted", pasted, case.tol["atol_pasted"])


def test_equal_seeds_give_equal_codes_and_other_seeds_do_not() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    options = SamplerOptions(steps=2, guidance_scale=1.0, published=True)

    def sample(seed: int) -> Tensor:
        generator.start(seed, options, StageClock(torch.device("cpu")))
        return generator.sample_windows([WindowInput(case.inputs["faces"][:4], case.inputs["audio"][:4])])[0]

    assert torch.equal(sample(7), sample(7))
    assert not torch.allclose(sample(7), sample(8), atol=1e-3)


def test_surround_comes_from_the_source_unchanged() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    faces = case.inputs["faces"][:2]
    decoded = generator.decode(torch.randn(2, 4, 8, 8), faces)
    kept = generator.mask.expand_as(decoded) == 1
    torch.testing.assert_close(decoded[kept], generator.pixels(faces)[kept], atol=1e-6, rtol=0)
    assert (decoded[~kept] - generator.pixels(faces)[~kept]).abs().mean() > 0.1


def test_detail_is_the_same_in_every_video_and_however_frames_are_batched() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    generator.keep_detail = True
    faces = case.inputs["faces"][:16]
    reference = generator.condition(faces, case.inputs["audio"][:16], None, None).ref_latents
    source = rearrange(reference, "1 c f h w -> f c h w")
    made = source.clone()
    made[3] += torch.randn(made[3].shape, generator=torch.Generator().manual_seed(1))
    codes = torch.cat([made, source], dim=1)

    def video(pieces: int) -> Tensor:
        generator.start(7, SamplerOptions(), StageClock(torch.device("cpu")))
        return torch.cat([generator.decode(*part) for part in zip(codes.split(pieces), faces.split(pieces))])

    whole, true = video(16), generator.pixels(faces)
    torch.testing.assert_close(video(16), whole)
    torch.testing.assert_close(video(5), whole, atol=1e-4, rtol=0)
    off = (whole - true).abs().mean(dim=(1, 2, 3))
    # Unchanged faces are the source's own; after a change that takes a while again.
    assert off[:3].max() < 1e-4 and off[3] > 0.01
    assert 1e-3 < off[15] < 0.5 * off[4] < 0.5 * off[3]


def count_encoded(generator: DiffusionGenerator) -> list[int]:
    """Grows by the number of pictures at every run of the encoder."""
    counts: list[int] = []
    encoder = generator.vae.encoder  # type: ignore[attr-defined]  # an AutoencoderKL
    encoder.register_forward_hook(lambda module, given, made: counts.append(len(given[0])))
    return counts


def _sample(generator: DiffusionGenerator, case: Golden, slots: list[int], *, named: bool) -> Tensor:
    """Codes of a window whose slots show these frames, named by their numbers or not at all."""
    window = WindowInput(case.inputs["faces"][slots], case.inputs["audio"][slots], slots if named else None)
    return generator.sample_windows([window])[0]


def test_each_face_is_encoded_once_and_codes_stay_the_same() -> None:
    case = load_golden("sampling_f20")
    generator = tiny_generator(case)
    generator.keep_detail = True
    counts = count_encoded(generator)
    spans = [slice(0, 16), slice(4, 20)]

    def video(named: bool) -> tuple[Tensor, int]:
        counts.clear()
        generator.start(7, SamplerOptions(steps=1, guidance_scale=1.0), StageClock(torch.device("cpu")))
        codes = [_sample(generator, case, list(range(span.start, span.stop)), named=named) for span in spans]
        return torch.cat(codes), sum(counts)

    (codes, encoded), (plain, plain_encoded) = video(named=True), video(named=False)
    assert plain_encoded == 2 * 32  # masked and whole
    assert encoded == 2 * 20
    assert torch.equal(codes, plain)


def test_a_face_shown_twice_in_a_window_is_encoded_once() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    counts = count_encoded(generator)
    slots = [0, 1, 2, 1, 0, 1, 2, 1]
    generator.start(7, SamplerOptions(steps=1, guidance_scale=1.0), StageClock(torch.device("cpu")))
    plain = _sample(generator, case, slots, named=False)
    counts.clear()
    assert torch.equal(_sample(generator, case, slots, named=True), plain)
    assert sum(counts) == 2 * 3


def test_names_of_an_earlier_video_mean_nothing() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    faces, audio = case.inputs["faces"][:4], case.inputs["audio"][:4]
    options, clock = SamplerOptions(steps=1, guidance_scale=1.0), StageClock(torch.device("cpu"))
    generator.start(7, options, clock)
    (expected,) = generator.sample_windows([WindowInput(faces, audio)])
    generator.sample_windows([WindowInput(faces.flip(-1), audio, range(4))])
    generator.start(7, options, clock)
    assert torch.equal(generator.sample_windows([WindowInput(faces, audio, range(4))])[0], expected)


def test_published_sampling_draws_for_every_slot_whatever_its_name() -> None:
    case = load_golden("sampling_f16")
    generator = tiny_generator(case)
    faces, audio = case.inputs["faces"][:4], case.inputs["audio"][:4]
    options = SamplerOptions(steps=1, guidance_scale=1.0, published=True)

    def sample(shown: list[int] | None) -> Tensor:
        generator.start(7, options, StageClock(torch.device("cpu")))
        return generator.sample_windows([WindowInput(faces, audio, shown)])[0]

    assert torch.equal(sample([0, 0, 0, 0]), sample(None))


def test_bfloat16_networks_keep_the_source_exact_and_the_noise_the_same() -> None:
    case = load_golden("sampling_f16")
    single, half = tiny_generator(case), tiny_generator(case, torch.bfloat16)
    faces = case.inputs["faces"][:2]
    latents = torch.randn(2, 4, 8, 8)
    for generator in (single, half):
        generator.start(7, SamplerOptions(), StageClock(torch.device("cpu")))
    made = half.decode(latents.bfloat16(), faces)
    kept = half.mask.expand_as(made) == 1
    torch.testing.assert_close(made[kept], single.pixels(faces)[kept], atol=1e-6, rtol=0)
    assert torch.equal(half._noise, single._noise.bfloat16())
