import logging

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

from latentsync.errors import CheckpointError, ConfigError
from latentsync.models.video_mae import VideoMae, VideoMaeSpec, load_video_mae
from tests.golden_files import load_golden, load_manifest
from tests.models.builders import golden_video_mae, golden_video_mae_spec

SMALL = VideoMaeSpec(image_size=8, frames=4, patch_size=4, tubelet_size=2, width=24, depth=2, heads=3, mlp_width=40)
VIT_G_PARAMETERS = 1_011_855_918
HEAD_PARAMETERS = 174 * 1408 + 174


def save(state_dict, path, layout):
    if layout == "safetensors":
        save_file(state_dict, path)
    else:
        torch.save({layout: state_dict} if layout != "bare" else state_dict, path)
    return path


def test_entries_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        model = VideoMae(VideoMaeSpec())
    assert sum(parameter.numel() for parameter in model.parameters()) == VIT_G_PARAMETERS - HEAD_PARAMETERS
    manifest = load_manifest("videomaev2_vit_g.json")
    expected = {key: tuple(entry["shape"]) for key, entry in manifest.items() if not key.startswith("head.")}
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("layout", "name"), [("model", "a.pth"), ("module", "a.pth"), ("bare", "a.pth"), ("safetensors", "a.safetensors")]
)
def test_published_layouts_load_and_the_head_is_reported(tmp_path, caplog, layout, name):
    weights = load_golden("videomae_tiny_weights")
    spec = golden_video_mae_spec(weights.attrs)
    path = save(weights.weights, tmp_path / name, layout)
    with caplog.at_level(logging.INFO):
        model = load_video_mae(spec, path, "cpu", torch.bfloat16)
    assert "head.bias, head.weight" in caplog.text
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    loaded = load_video_mae(spec, path, "cpu", torch.float32)
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, weights.weights[key])
    torch.testing.assert_close(loaded.positions.table, VideoMae(spec).positions.table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("fc_norm.bias"), "1 entries missing, e.g. fc_norm.bias"),
        (lambda weights: weights.update({"decoder.weight": torch.ones(1)}), "unknown, e.g. decoder.weight"),
        (lambda weights: weights.update({"fc_norm.bias": torch.ones(1)}), "of another shape, e.g. fc_norm.bias"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, change, message):
    weights = dict(VideoMae(SMALL).state_dict())
    change(weights)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_video_mae(SMALL, save(weights, tmp_path / "a.pth", "bare"), "cpu", torch.float32)
    assert "VideoMAE v2" in str(caught.value)


def test_tokens_are_cut_as_a_convolution_cuts_them():
    projection = VideoMae(SMALL).patch_embed.proj
    video = torch.rand(2, 3, 4, 8, 8)
    convolved = torch.nn.Conv3d.forward(projection, video)
    torch.testing.assert_close(projection(video), rearrange(convolved, "b c f h w -> b (f h w) c"))


def test_recomputing_changes_no_gradient():
    model = VideoMae(SMALL)
    video = torch.rand(1, 3, 4, 8, 8)
    gradients: list[torch.Tensor] = []
    for enabled in (False, True):
        model.enable_gradient_checkpointing(enabled)
        pixels = video.clone().requires_grad_()
        gradients += torch.autograd.grad(model(pixels).square().sum(), pixels)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_order_of_frames_matters():
    model = golden_video_mae("videomae_tiny_weights")
    video = load_golden("trepa_tiny").inputs["real"]
    video = torch.nn.functional.interpolate(video[0].transpose(0, 1), (224, 224)).transpose(0, 1)[None]
    with torch.no_grad():
        assert (model(video) - model(video.flip(2))).abs().max() > 1e-4


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"expected \(b, 3, 4, 8, 8\)"):
        VideoMae(SMALL)(torch.rand(1, 3, 4, 8, 4))
    with pytest.raises(ConfigError, match="must divide"):
        VideoMaeSpec(patch_size=15)
