"""Predictions over the steps of a window: with and without guidance, with cached features, and from CUDA graphs."""

import copy

import pytest
import torch

from latentsync.backends.cuda import prepare_unet
from latentsync.backends.cuda_graphs import GraphPredictor
from latentsync.backends.fused.attention import FusedSelfAttention
from latentsync.backends.predictor import UNetPredictor
from latentsync.diffusion.step_plan import FeatureCacheMode
from tests.models.builders import SMALL_SPEC, small_inputs, small_unet

FRAMES = 4
STEPS: list[tuple[int, float, FeatureCacheMode]] = [
    (901, 1.5, "keep"),
    (801, 1.5, "reuse"),
    (701, 1.0, "keep"),
    (1, 1.0, "reuse"),
]


def window(batch=1):
    """Latents, constant channels and audio of windows that fit the small network."""
    sample, _, audio = small_inputs(batch, FRAMES)
    return sample[:, :4], sample[:, 4:], audio.unflatten(0, (batch, FRAMES))


@torch.no_grad()
def test_guidance_pushes_away_from_the_prediction_with_zeros():
    unet, (latents, conditioning, audio) = small_unet(), window(batch=2)
    predictor = UNetPredictor(unet)
    predictor.begin(conditioning, audio)
    sample, time = torch.cat([latents, conditioning], dim=1), torch.tensor(501)
    without, with_audio = unet(sample, time, torch.zeros_like(audio)), unet(sample, time, audio)
    torch.testing.assert_close(predictor.predict(latents, 501, 1.0), with_audio, atol=1e-5, rtol=1e-4)
    expected = without + 1.7 * (with_audio - without)
    torch.testing.assert_close(predictor.predict(latents, 501, 1.7), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@torch.no_grad()
def test_features_are_reused_until_they_are_cached_anew(guidance_scale):
    latents, conditioning, audio = window()
    predictor = UNetPredictor(small_unet())
    predictor.begin(conditioning, audio)
    kept = predictor.predict(latents, 501, guidance_scale, "keep")
    torch.testing.assert_close(predictor.predict(latents, 501, guidance_scale, "reuse"), kept, atol=1e-5, rtol=1e-4)
    with pytest.raises(RuntimeError, match="'keep'"):
        predictor.predict(latents, 451, 3 - guidance_scale, "reuse")
    later = predictor.predict(latents + 1, 451, guidance_scale, "reuse")
    fresh = predictor.predict(latents + 1, 451, guidance_scale)
    assert (later - fresh).abs().max() > 1e-4


def test_predict_before_begin_or_keep_is_refused():
    latents, conditioning, audio = window()
    predictor = UNetPredictor(small_unet())
    with pytest.raises(RuntimeError, match="call begin"):
        predictor.predict(latents, 501, 1.0)
    predictor.begin(conditioning, audio)
    with pytest.raises(RuntimeError, match="'keep'"):
        predictor.predict(latents, 501, 1.0, "reuse")


@torch.no_grad()
def test_split_guidance_gives_the_same_from_half_as_many_frames_at_once():
    unet, (latents, conditioning, audio) = small_unet(), window(batch=2)
    joint, split = UNetPredictor(unet), UNetPredictor(unet, split_guidance=True)
    widths = []
    unet.conv_out.register_forward_hook(lambda _, inputs, __: widths.append(len(inputs[0])))
    for predictor in (joint, split):
        predictor.begin(conditioning, audio)
    for timestep, scale, cache_mode in STEPS:
        expected = joint.predict(latents, timestep, scale, cache_mode)
        together = max(widths)
        widths.clear()
        found = split.predict(latents, timestep, scale, cache_mode)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert max(widths) == 2 * FRAMES and together == (4 if scale > 1 else 2) * FRAMES
        widths.clear()
    split.predict(latents, 501, 1.0, "keep")
    with pytest.raises(RuntimeError, match="'keep'"):
        split.predict(latents, 451, 1.5, "reuse")


def test_packing_without_copies_takes_no_memory():
    unet = small_unet()
    before = weight_bytes(unet)
    prepare_unet(unet, copies=False)
    assert weight_bytes(unet) == before
    assert any(isinstance(module, FusedSelfAttention) for module in unet.modules())


def weight_bytes(unet):
    """What all the network's tensors take together."""
    storages = [tensor.untyped_storage() for tensor in (*unet.parameters(), *unet.buffers())]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@torch.no_grad()
def test_graphs_of_the_prepared_network_give_what_the_plain_one_gives(compiled):
    unet = small_unet().cuda().half()
    prepared = copy.deepcopy(unet)
    prepare_unet(prepared, compiled=compiled)
    plain, recorded = UNetPredictor(unet), GraphPredictor(prepared, FRAMES, compiled=compiled)
    for seed in range(2):
        torch.manual_seed(seed)
        latents, conditioning, audio = (part.cuda().half() for part in window(batch=1 + seed))
        plain.begin(conditioning, audio)
        recorded.begin(conditioning, audio)
        history = []
        for timestep, scale, cache_mode in STEPS:
            expected = plain.predict(latents, timestep, scale, cache_mode)
            found = recorded.predict(latents, timestep, scale, cache_mode)
            history.append((found, found.clone()))
            torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
            latents = latents + 0.1 * expected
        assert all(torch.equal(given, copy) for given, copy in history), "a result was overwritten by a later step"
    with pytest.raises(RuntimeError, match="'keep'"):
        recorded.predict(latents, 1, 1.5, "reuse")


@pytest.mark.gpu
@torch.no_grad()
def test_windows_of_another_length_run_without_a_graph():
    unet = small_unet().cuda().half()
    prepare_unet(unet)
    recorded = GraphPredictor(unet, FRAMES + 1)
    latents, conditioning, audio = (part.cuda().half() for part in window())
    recorded.begin(conditioning, audio)
    assert recorded.predict(latents, 500, 1.5).shape == (1, SMALL_SPEC.out_channels, FRAMES, 8, 8)
