import pytest
import torch
from torch import nn

from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from tests.golden_files import load_golden, load_manifest
from tests.models.builders import SMALL_SPEC, fill_with_formula, golden_unet, small_inputs, small_unet

GOLDEN_CASES = [
    "unet_motion_f2_t951",
    "unet_motion_f16_t1",
    "unet_motion_b2_f5_4d",
    "unet_motion_f3_noaudio",
    "unet_motion_f2_12x20",
    "unet_nomotion_f2_t951",
    "unet_nomotion_f16_t301",
    "unet_deconly_f4_t101",
    "unet_formula_c64_f3",
]


@pytest.mark.parametrize("name", GOLDEN_CASES)
@torch.no_grad()
def test_forward_equals_the_published_network(name):
    case = load_golden(name)
    noise_pred = golden_unet(case)(case.inputs["sample"], case.inputs["timestep"], case.inputs.get("audio"))
    case.check("sample", noise_pred)


@torch.no_grad()
def test_every_part_equals_the_published_network():
    case = load_golden("unet_motion_f2_t951")
    model = golden_unet(case)
    parts = {"time_emb": model.time_embedding, "mid": model.mid_block}
    parts |= {f"down_{level}": block for level, block in enumerate(model.down_blocks)}
    parts |= {f"up_{level}": block for level, block in enumerate(model.up_blocks)}
    seen = {}
    for name, module in parts.items():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    model(case.inputs["sample"], case.inputs["timestep"], case.inputs["audio"])
    taps = {name.removeprefix("tap.") for name in case.outputs if name.startswith("tap.")}
    # The last two levels' outputs are large, and the network's own output shows them.
    assert taps == set(seen) - {"up_2", "up_3"}
    for name, output in ((name, seen[name]) for name in taps):
        # A level on the way down hands out all its skips, one on the way up also its last layer's input.
        tensor = output[-1] if name.startswith("down") else output[0] if name.startswith("up") else output
        case.check(f"tap.{name}", tensor if tensor.ndim == 2 else tensor.transpose(0, 1)[None])


@pytest.mark.parametrize(
    ("spec", "dropped", "entries", "parameters"),
    [
        (UNetSpec(), None, 1246, 1_267_099_844),
        (UNetSpec(use_motion_module=False), "", 686, 849_962_244),
        (UNetSpec(motion_module_decoder_only=True), "down_blocks.", 1022, 1_100_244_804),
    ],
    ids=["stage2", "stage1", "stage2_efficient"],
)
def test_entries_and_shapes_are_those_of_published_files(spec, dropped, entries, parameters):
    manifest = load_manifest("unet_stage2.json")
    expected = {
        key: tuple(entry["shape"])
        for key, entry in manifest.items()
        if dropped is None or not ("motion_modules." in key and key.startswith(dropped))
    }
    with torch.device("meta"):
        model = UNet3DConditionModel(spec)
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == expected
    assert len(expected) == entries
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@torch.no_grad()
def test_shallow_step_from_the_same_input_equals_the_full_one():
    model, (sample, timesteps, audio) = small_unet(), small_inputs(batch=2)
    audio_context = model.project_audio(audio)
    noise_pred, cached = model.forward_full(sample, timesteps, audio_context)
    torch.testing.assert_close(model.forward_shallow(sample, timesteps, audio_context, cached), noise_pred)
    torch.testing.assert_close(model(sample, timesteps, audio), noise_pred)


@pytest.mark.parametrize("changes", [{}, {"add_audio_layer": False}, {"motion_module_mid_block": True}])
@torch.no_grad()
def test_guided_predictions_are_those_with_zeros_and_those_with_audio(changes):
    model, (sample, timesteps, audio) = small_unet(**changes), small_inputs(batch=2)
    both = torch.cat([torch.zeros_like(audio), audio])
    audio_context = model.project_audio(audio, guided=True)
    expected, expected_deep = model.forward_full(sample.repeat(2, 1, 1, 1, 1), timesteps, model.project_audio(both))
    noise_pred, deep = model.forward_full(sample, timesteps, audio_context)
    both_branches = slice(None) if "add_audio_layer" not in changes else slice(2)  # without audio all are alike
    torch.testing.assert_close(noise_pred, expected[both_branches], atol=1e-5, rtol=1e-4)
    later = model.forward_shallow(sample + 0.1, timesteps, audio_context, deep)
    expected = model.forward_shallow(
        sample.repeat(2, 1, 1, 1, 1) + 0.1, timesteps, model.project_audio(both), expected_deep
    )
    torch.testing.assert_close(later, expected[both_branches], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_shallow_step_runs_only_the_outermost_layer():
    model, (sample, timesteps, audio) = small_unet(), small_inputs()
    audio_context = model.project_audio(audio)
    _, cached = model.forward_full(sample, timesteps, audio_context)
    for block in (
        *model.down_blocks,
        model.mid_block,
        model.up_blocks[0],
        model.get_submodule("up_blocks.1.resnets.0"),
    ):
        block.register_forward_pre_hook(lambda *_: pytest.fail("a deep layer was run"))
    fresh = model.forward_shallow(sample + 0.1, timesteps - 20, audio_context, cached)
    assert fresh.shape == (1, SMALL_SPEC.out_channels, 3, 8, 8)


@torch.no_grad()
def test_videos_of_a_batch_do_not_influence_each_other():
    model, (sample, _, audio) = small_unet(), small_inputs(batch=2)
    timesteps = torch.tensor([1, 901])
    together = model(sample, timesteps, audio)
    for index in range(2):
        alone = model(sample[index : index + 1], timesteps[index], audio.chunk(2)[index])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_audio_in_four_dimensions_is_the_same_audio():
    model, (sample, timesteps, audio) = small_unet(), small_inputs(batch=2)
    torch.testing.assert_close(model(sample, timesteps, audio.unflatten(0, (2, 3))), model(sample, timesteps, audio))


@torch.no_grad()
def test_each_frame_is_conditioned_on_its_own_audio_window():
    # Without motion modules frames are only joined by norms, which do not care about their order.
    model, (sample, timesteps, audio) = small_unet(use_motion_module=False), small_inputs()
    order = [2, 0, 1]
    reordered = model(sample, timesteps, audio)[:, :, order]
    torch.testing.assert_close(model(sample[:, :, order], timesteps, audio[order]), reordered, atol=1e-5, rtol=1e-4)
    assert (model(sample[:, :, order], timesteps, audio) - reordered).abs().max() > 0.01


@torch.no_grad()
def test_motion_modules_see_the_order_of_frames():
    model, (sample, timesteps, audio) = small_unet(), small_inputs()
    order = [2, 0, 1]
    reordered = model(sample, timesteps, audio)[:, :, order]
    assert (model(sample[:, :, order], timesteps, audio[order]) - reordered).abs().max() > 0.01


@torch.no_grad()
def test_network_starts_with_zero_prediction_and_idle_motion_modules():
    sample, timesteps, audio = small_inputs()
    assert not UNet3DConditionModel(SMALL_SPEC)(sample, timesteps, audio).any()
    with_motion = small_unet()
    for name, parameter in with_motion.named_parameters():
        if name.endswith("temporal_transformer.proj_out.weight"):
            parameter.zero_()
    without = small_unet(use_motion_module=False)
    without.load_state_dict({key: with_motion.state_dict()[key] for key in without.state_dict()})
    torch.testing.assert_close(with_motion(sample, timesteps, audio), without(sample, timesteps, audio))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("changes", [{}, {"motion_module_mid_block": True, "motion_num_transformer_block": 2}])
@torch.no_grad()
def test_every_projection_is_called_as_a_module(changes, guided):
    model, (sample, timesteps, audio) = small_unet(**changes), small_inputs()
    projections = {name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    called = set()
    for name in projections:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name))
    model.forward_full(sample, timesteps, model.project_audio(audio, guided=guided))
    assert len(projections) > 80
    assert called == projections


@torch.no_grad()
def test_compiles_into_one_graph():
    model, inputs = small_unet(), small_inputs()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), model(*inputs), atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient():
    model, inputs = small_unet(), small_inputs()
    gradients = []
    for enabled in (False, True):
        model.enable_gradient_checkpointing(enabled)
        model.zero_grad()
        model(*inputs).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_half_precision_stays_near_single_precision():
    model, (sample, timesteps, audio) = small_unet(), small_inputs()
    expected = model(sample, timesteps, audio)
    model.bfloat16()
    actual = model(sample.bfloat16(), timesteps, audio.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_motion_module_in_the_middle_and_without_audio_layers():
    model, (sample, timesteps, audio) = (
        small_unet(motion_module_mid_block=True, add_audio_layer=False),
        small_inputs(),
    )
    assert any(key.startswith("mid_block.motion_modules.0.") for key in model.state_dict())
    assert not any("attn2" in key for key in model.state_dict())
    torch.testing.assert_close(model(sample, timesteps, audio), model(sample, timesteps, None))


@pytest.mark.parametrize(
    ("sample_shape", "audio_shape", "named"),
    [
        ((1, 12, 3, 8, 8), (3, 50, 24), "sample"),
        ((13, 3, 8, 8), (3, 50, 24), "sample"),
        ((1, 13, 7, 8, 8), (7, 50, 24), "7 frames"),
        ((1, 13, 3, 8, 8), (2, 50, 24), "encoder_hidden_states"),
        ((1, 13, 3, 8, 8), (3, 50, 25), "encoder_hidden_states"),
        ((2, 13, 3, 8, 8), (3, 50, 24), "encoder_hidden_states"),
        ((1, 13, 3, 8, 8), (50, 24), "encoder_hidden_states"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(sample_shape, audio_shape, named):
    with pytest.raises(ValueError, match=named):
        small_unet()(torch.zeros(sample_shape), torch.tensor(1), torch.zeros(audio_shape))


@pytest.mark.full
@torch.no_grad()
def test_full_size_network_equals_the_published_one():
    case = load_golden("unet_formula_full_stage2")
    model = UNet3DConditionModel(UNetSpec()).eval()
    fill_with_formula(model, case.attrs["gain"])
    case.check("sample", model(case.inputs["sample"], case.inputs["timestep"], case.inputs["audio"]))
