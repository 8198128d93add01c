from typing import Any

import pytest
import torch

from latentsync.errors import ConfigError
from latentsync.models.stable_syncnet import (
    StableSyncNet,
    StableSyncNetSpec,
    SyncNetEncoderSpec,
    cosine,
    stack_frames,
)
from tests.golden_files import load_golden, load_manifest
from tests.models.builders import formula_syncnet, syncnet_encoder_spec

PIXEL_AUDIO = {
    "in_channels": 1,
    "block_out_channels": [32, 64, 128, 256, 512, 1024, 2048],
    "downsample_factors": [[2, 1], 2, 2, 1, 2, 2, [2, 3]],
}
PIXEL_VISUAL = {
    "in_channels": 48,
    "block_out_channels": [64, 128, 256, 256, 512, 1024, 2048, 2048],
    "downsample_factors": [[1, 2], 2, 2, 2, 2, 2, 2, 2],
}
# No attn_blocks here: the published configuration of 25 frames lacks them too.
CONFIGS = {
    "stable_syncnet_16_latent": load_golden("stable_syncnet_formula_16_latent").attrs["config"],
    "stable_syncnet_16_pixel": {"audio_encoder": PIXEL_AUDIO, "visual_encoder": PIXEL_VISUAL},
    "stable_syncnet_16_pixel_attn": load_golden("stable_syncnet_formula_16_pixel_attn").attrs["config"],
    "stable_syncnet_25_pixel": {
        "audio_encoder": {
            "in_channels": 1,
            "block_out_channels": [64, 128, 256, 256, 512, 1024],
            "downsample_factors": [2] * 6,
        },
        "visual_encoder": {
            "in_channels": 75,
            "block_out_channels": [128, 128, 256, 256, 512, 512, 1024, 1024],
            "downsample_factors": [[1, 2], 2, 2, 2, 2, 2, 2, 2],
        },
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_entries_and_shapes_are_those_of_published_files(name):
    config = CONFIGS[name]
    spec = StableSyncNetSpec(
        syncnet_encoder_spec(config["visual_encoder"]), syncnet_encoder_spec(config["audio_encoder"])
    )
    with torch.device("meta"):
        model = StableSyncNet(spec)
    expected = {key: tuple(entry["shape"]) for key, entry in load_manifest(f"{name}.json").items()}
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == expected


@pytest.mark.parametrize(
    "name",
    [
        "stable_syncnet_formula_mid",
        "stable_syncnet_formula_16_latent",
        pytest.param("stable_syncnet_formula_16_pixel_attn", marks=pytest.mark.full),
    ],
)
@torch.no_grad()
def test_embeddings_equal_the_published_network(name):
    case = load_golden(name)
    model, image, mel = formula_syncnet(case)
    vision_embeds, audio_embeds = model(image, mel)
    every = case.attrs["every"]
    case.check("vision_embeds", vision_embeds[:, ::every])
    case.check("audio_embeds", audio_embeds[:, ::every])
    case.check("cosine", cosine(vision_embeds, audio_embeds))


@torch.no_grad()
def test_tiny_network_equals_the_published_one():
    case = load_golden("stable_syncnet_tiny")
    config = case.attrs["config"]
    spec = StableSyncNetSpec(
        syncnet_encoder_spec(config["visual_encoder"]), syncnet_encoder_spec(config["audio_encoder"])
    )
    model = StableSyncNet(spec).eval()
    model.load_state_dict(load_golden(case.attrs["weights"]).weights)
    vision_embeds, audio_embeds = model(case.inputs["images_u8"].float() / 127.5 - 1, case.inputs["mel"])
    case.check("vision_embeds", vision_embeds)
    case.check("audio_embeds", audio_embeds)
    case.check("cosine", cosine(vision_embeds, audio_embeds))


def test_cosine_never_leaves_zero_to_one():
    embeds = torch.full((1, 3), 0.57736)
    assert (embeds * embeds).sum() > 1
    assert cosine(embeds, embeds).item() == 1.0
    assert cosine(embeds, -embeds).item() == 0.0


def test_frames_are_stacked_frame_first():
    pictures = torch.arange(2 * 3 * 2 * 5 * 4).reshape(2, 3, 2, 5, 4)
    stacked = stack_frames(pictures)
    assert stacked.shape == (2, 6, 5, 4)
    assert torch.equal(stacked[:, 3:], pictures[:, :, 1])


@pytest.mark.parametrize(
    "changes",
    [{"downsample_factors": (2,)}, {"attn_blocks": (1,)}, {"block_out_channels": (32, 48)}],
)
def test_lists_that_do_not_fit_are_refused(changes):
    fields = {"in_channels": 1, "block_out_channels": (32, 64), "downsample_factors": (2, 2)} | changes
    with pytest.raises(ConfigError):
        SyncNetEncoderSpec(**fields)


def test_recomputing_changes_no_gradient():
    torch.manual_seed(1)
    encoder: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "downsample_factors": (2, 2),
        "attn_blocks": (1, 0),
        "dropout": 0.1,
    }
    spec = StableSyncNetSpec(SyncNetEncoderSpec(6, **encoder), SyncNetEncoderSpec(1, **encoder))
    model = StableSyncNet(spec).train()
    image, mel = torch.randn(2, 6, 8, 8, requires_grad=True), torch.randn(2, 1, 8, 8)
    results: list[tuple[torch.Tensor, ...]] = []
    for enabled in (False, True):
        model.enable_gradient_checkpointing(enabled)
        torch.manual_seed(2)
        loss = cosine(*model(image, mel)).sum()
        results.append(torch.autograd.grad(loss, [image, *model.parameters()]))
    assert results[0][0].abs().max() > 0
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


def test_cosine_is_exact_under_mixed_precision():
    embeds = torch.nn.functional.normalize(torch.rand(4, 64), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        agreement = cosine(embeds, embeds)
    assert agreement.dtype == torch.float32
    torch.testing.assert_close(agreement, torch.ones(4))
