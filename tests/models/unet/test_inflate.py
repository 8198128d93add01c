import logging

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from latentsync.errors import CheckpointError
from latentsync.models.unet.inflate import inflate_unet
from latentsync.models.unet.spec import UNetSpec
from tests.golden_files import load_manifest
from tests.models.builders import SMALL_SPEC

TEXT_WIDTH = SMALL_SPEC.cross_attention_dim


def image_unet(**changes):
    """A small image network whose every parameter is random."""
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": SMALL_SPEC.block_out_channels,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": SMALL_SPEC.layers_per_block,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": SMALL_SPEC.attention_head_dim,
        "norm_num_groups": SMALL_SPEC.norm_num_groups,
        **changes,
    }
    model = UNet2DConditionModel(**config).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    return model


def spec(**changes):
    return UNetSpec(**{**SMALL_SPEC.__dict__, **changes})


def inflate(model, folder, unet_spec=SMALL_SPEC, dtype=torch.float32):
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    return inflate_unet(unet_spec, path, "cpu", dtype)


@pytest.mark.parametrize("linear", [False, True], ids=["convolutions", "linear projections"])
@torch.no_grad()
def test_a_still_window_gives_the_image_networks_result(tmp_path, linear):
    """With the same condition for all frames, joint norms see what the image network's own norms see."""
    image_model = image_unet(use_linear_projection=linear)
    model, report = inflate(image_model, tmp_path)
    latents, extra = torch.randn(2, 4, 8, 8), torch.randn(2, 9, 3, 8, 8)
    text = torch.randn(2, 7, TEXT_WIDTH)
    timesteps = torch.tensor([37, 801])
    expected = image_model(latents, timesteps, text).sample
    window = torch.cat([latents[:, :, None].expand(-1, -1, 3, -1, -1), extra], dim=1)
    noise = model(window, timesteps, text[:, None].expand(-1, 3, -1, -1))
    assert noise.std() > 0.05
    torch.testing.assert_close(noise, expected[:, :, None].expand_as(noise), atol=1e-4, rtol=1e-4)
    assert report.widened == ["conv_in.weight"] and not report.fresh and not report.unused
    assert set(report.taken) | {"conv_in.weight"} == set(image_model.state_dict())


@torch.no_grad()
def test_condition_of_another_width_starts_at_random(tmp_path, caplog):
    image_model = image_unet(cross_attention_dim=40)
    with caplog.at_level(logging.INFO):
        model, report = inflate(image_model, tmp_path)
    assert report.fresh and all(key.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for key in report.fresh)
    assert sorted(report.unused) == sorted(report.fresh)
    assert f"{len(report.fresh)} entries start at random" in caplog.text
    weights, stored = model.state_dict(), image_model.state_dict()
    for key in report.taken:
        assert torch.equal(weights[key], stored[key]), key
    assert torch.equal(weights["conv_in.weight"][:, :4], stored["conv_in.weight"])
    assert not weights["conv_in.weight"][:, 4:].any()
    for key in report.fresh:
        assert weights[key].isfinite().all() and weights[key].std() > 0
    assert all(not weights[key].any() for key in report.motion if ".temporal_transformer.proj_out." in key)


def test_without_motion_modules_and_in_half_precision(tmp_path):
    model, report = inflate(image_unet(), tmp_path, spec(use_motion_module=False), torch.bfloat16)
    assert not report.motion
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_part_of_a_layer_is_not_taken(tmp_path):
    state_dict = image_unet().state_dict()
    del state_dict["conv_out.bias"]
    torch.save(state_dict, tmp_path / "unet.bin")
    model, report = inflate_unet(SMALL_SPEC, tmp_path / "unet.bin", "cpu", torch.float32)
    assert sorted(report.fresh) == ["conv_out.bias", "conv_out.weight"] and report.unused == ["conv_out.weight"]
    assert not model.conv_out.weight.any()


def test_another_network_is_refused_and_named(tmp_path):
    torch.save({"encoder.positional_embedding": torch.zeros(1500, 384)}, tmp_path / "tiny.pt")
    with pytest.raises(CheckpointError, match=r"fits 0 of the \d+ .* looks like a Whisper model"):
        inflate_unet(SMALL_SPEC, tmp_path / "tiny.pt", "cpu", torch.float32)


def test_an_image_network_of_other_widths_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="looks like an image U-Net of Stable Diffusion"):
        inflate(image_unet(block_out_channels=(64, 96)), tmp_path)


def test_published_stage_1_has_the_image_networks_names():
    with torch.device("meta"):
        image_model = UNet2DConditionModel(cross_attention_dim=768)  # diffusers' defaults are those of version 1.5
    names = {key for key in load_manifest("unet_stage2.json") if "motion_modules." not in key}
    assert set(image_model.state_dict()) == names
