"""The VAE's losses, and the crops it is trained on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import load_mask
from latentsync.training.demo.vae_task import NoisyAutoencoder, RandomCrops, VaeStageOptions, build_vae, vae_losses

SMALL = VaeStageOptions((8, 8, 16, 16), norm_num_groups=4)
R = 64


@given(st.integers(R // 2, 2 * R), st.integers(0, 99))
def test_crops_lie_in_the_image_and_reach_the_mouth_if_they_should(side: int, seed: int) -> None:
    mask = load_mask("mask", R)[0]
    images = torch.arange(R * R).reshape(1, R, R)
    crops = RandomCrops(side, mask)
    for at_mouth in (False, True):
        square = images[(..., *crops.draw(R, at_mouth, seed))]
        assert square.shape == (1, min(side, R), min(side, R))
    assert (mask[cuts_of(square)] < 0.5).any()


def cuts_of(square: torch.Tensor) -> tuple[slice, slice]:
    """Where in the picture a square was cut out."""
    top, left = divmod(int(square[0, 0, 0]), R)
    return slice(top, top + square.shape[1]), slice(left, left + square.shape[2])


def test_training_goes_on_from_an_autoencoder_of_the_same_sizes(tmp_path: Path) -> None:
    trained = build_vae(SMALL, R)
    trained.save_pretrained(tmp_path)
    loaded = build_vae(replace(SMALL, start_from=str(tmp_path)), R)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trained.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(ConfigError, match=r"\[8, 8, 16, 16\].*\[8, 8, 16, 32\]"):
        build_vae(replace(SMALL, block_out_channels=(8, 8, 16, 32), start_from=str(tmp_path)), R)


def test_a_wrong_hue_counts_where_brightness_is_right() -> None:
    torch.manual_seed(0)
    vae = build_vae(SMALL, R)
    network = NoisyAutoencoder(vae)
    options = replace(SMALL, colour_weight=1.0)
    grey = torch.zeros(1, 3, R, R)
    with torch.no_grad():
        for parameter in vae.decoder.conv_out.parameters():
            parameter.zero_()
        vae.decoder.conv_out.bias.copy_(torch.tensor([0.2, 0.2, 0.2]))
        lighter = vae_losses(network(grey), grey, torch.ones(1, 1, R, R), options)
        vae.decoder.conv_out.bias.copy_(torch.tensor([0.2, -0.2, 0.2]))
        tinted = vae_losses(network(grey), grey, torch.ones(1, 1, R, R), options)
    assert torch.isclose(lighter["pixel"], tinted["pixel"])
    assert lighter["colour"] < 1e-6 and tinted["colour"] > 0.1
