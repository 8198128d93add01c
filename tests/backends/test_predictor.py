"""Predictions over the steps of a window: with and without guidance, with kept features, and from recorded graphs."""

import pytest
import torch

from latentsync.backends.cuda import pack_unet
from latentsync.backends.cuda_graphs import GraphPredictor
from latentsync.backends.predictor import Features, UNetPredictor
from latentsync.models.layers.attention import GEGLU, Attention
from tests.models.builders import SMALL_SPEC, small_inputs, small_unet

FRAMES = 4
STEPS: list[tuple[int, float, Features]] = [
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
    unet, (latents, fixed, audio) = small_unet(), window(batch=2)
    predictor = UNetPredictor(unet)
    predictor.begin(fixed, audio)
    sample, time = torch.cat([latents, fixed], dim=1), torch.tensor(501)
    without, with_audio = unet(sample, time, torch.zeros_like(audio)), unet(sample, time, audio)
    torch.testing.assert_close(predictor.predict(latents, 501, 1.0), with_audio, atol=1e-5, rtol=1e-4)
    expected = without + 1.7 * (with_audio - without)
    torch.testing.assert_close(predictor.predict(latents, 501, 1.7), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@torch.no_grad()
def test_features_are_reused_until_they_are_kept_anew(guidance_scale):
    latents, fixed, audio = window()
    predictor = UNetPredictor(small_unet())
    predictor.begin(fixed, audio)
    kept = predictor.predict(latents, 501, guidance_scale, "keep")
    torch.testing.assert_close(predictor.predict(latents, 501, guidance_scale, "reuse"), kept, atol=1e-5, rtol=1e-4)
    with pytest.raises(RuntimeError, match="'keep'"):
        predictor.predict(latents, 451, 3 - guidance_scale, "reuse")
    later = predictor.predict(latents + 1, 451, guidance_scale, "reuse")
    fresh = predictor.predict(latents + 1, 451, guidance_scale)
    assert (later - fresh).abs().max() > 1e-4


def test_nothing_is_predicted_before_there_is_something_to_go_on():
    latents, fixed, audio = window()
    predictor = UNetPredictor(small_unet())
    with pytest.raises(RuntimeError, match="call begin"):
        predictor.predict(latents, 501, 1.0)
    predictor.begin(fixed, audio)
    with pytest.raises(RuntimeError, match="'keep'"):
        predictor.predict(latents, 501, 1.0, "reuse")


@torch.no_grad()
def test_split_guidance_gives_the_same_from_half_as_many_frames_at_once():
    unet, (latents, fixed, audio) = small_unet(), window(batch=2)
    joint, split = UNetPredictor(unet), UNetPredictor(unet, split_guidance=True)
    widths = []
    unet.conv_out.register_forward_hook(lambda _, inputs, __: widths.append(len(inputs[0])))
    for predictor in (joint, split):
        predictor.begin(fixed, audio)
    for timestep, scale, features in STEPS:
        expected = joint.predict(latents, timestep, scale, features)
        together = max(widths)
        widths.clear()
        found = split.predict(latents, timestep, scale, features)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert max(widths) == 2 * FRAMES and together == (4 if scale > 1 else 2) * FRAMES
        widths.clear()
    split.predict(latents, 501, 1.0, "keep")
    with pytest.raises(RuntimeError, match="'keep'"):
        split.predict(latents, 451, 1.5, "reuse")


@torch.no_grad()
def test_packing_changes_neither_results_nor_names():
    unet, (sample, timesteps, audio) = small_unet(), small_inputs(batch=2)
    before, state = unet(sample, timesteps, audio), {key: value.clone() for key, value in unet.state_dict().items()}
    packed = 0
    for module in unet.modules():
        if isinstance(module, GEGLU) or (isinstance(module, Attention) and module.packable):
            module.pack()
            packed += 1
    assert packed > 4
    torch.testing.assert_close(unet(sample, timesteps, audio), before, atol=1e-6, rtol=1e-5)
    after = unet.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], value) for key, value in state.items())


def test_packing_without_copies_takes_no_memory():
    unet = small_unet()
    before = weight_bytes(unet)
    pack_unet(unet, copies=False)
    assert weight_bytes(unet) == before
    assert any(module.packed is not None for module in unet.modules() if isinstance(module, Attention))


def weight_bytes(unet):
    """What all the network's tensors take together."""
    storages = [tensor.untyped_storage() for tensor in (*unet.parameters(), *unet.buffers())]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@torch.no_grad()
def test_graphs_give_what_the_network_gives(compiled):
    unet = small_unet().cuda().half()
    pack_unet(unet, compiled=compiled)
    plain, recorded = UNetPredictor(unet), GraphPredictor(unet, FRAMES, compiled=compiled)
    for seed in range(2):
        torch.manual_seed(seed)
        latents, fixed, audio = (part.cuda().half() for part in window(batch=1 + seed))
        plain.begin(fixed, audio)
        recorded.begin(fixed, audio)
        history = []
        for timestep, scale, features in STEPS:
            expected = plain.predict(latents, timestep, scale, features)
            found = recorded.predict(latents, timestep, scale, features)
            history.append((found, found.clone()))
            torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
            latents = latents + 0.1 * expected
        assert all(torch.equal(given, copy) for given, copy in history), "a result was overwritten by a later step"
    with pytest.raises(RuntimeError, match="'keep'"):
        recorded.predict(latents, 1, 1.5, "reuse")


@pytest.mark.gpu
@torch.no_grad()
def test_windows_of_another_length_are_not_recorded():
    unet = small_unet().cuda().half()
    recorded = GraphPredictor(unet, FRAMES + 1)
    latents, fixed, audio = (part.cuda().half() for part in window())
    recorded.begin(fixed, audio)
    assert recorded.predict(latents, 500, 1.5).shape == (1, SMALL_SPEC.out_channels, FRAMES, 8, 8)
