"""The autoencoder against diffusers' class of the same name."""

import diffusers
import pytest
import torch

from latentsync.errors import CheckpointError
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig

SIZES = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.inference_mode()
def test_it_computes_the_same_as_diffusers(dtype: torch.dtype, layout: torch.memory_format) -> None:
    theirs = diffusers.AutoencoderKL(**SIZES).eval().to(dtype)
    ours = AutoencoderKL(VaeConfig.from_mapping(SIZES)).eval().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 16, 24).to(dtype).contiguous(memory_format=layout)
    expected, made = theirs.encode(images).latent_dist, ours.encode(images).latent_dist
    assert torch.equal(made.mean, expected.mean) and torch.equal(made.std, expected.std)
    latents = expected.mean.contiguous(memory_format=layout)
    assert torch.equal(ours.decode(latents).sample, theirs.decode(latents).sample)
    assert (ours.device.type, ours.dtype) == ("cpu", dtype)


def test_other_architectures_are_refused() -> None:
    for other in ({"down_block_types": ["AttnDownEncoderBlock2D"]}, {"use_quant_conv": False}, {"act_fn": "relu"}):
        with pytest.raises(CheckpointError, match="not supported"):
            VaeConfig.from_mapping(other)


def test_values_can_be_read_by_key_and_by_name() -> None:
    config = VaeConfig.from_mapping({"_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "sample_size": 64})
    assert config["block_out_channels"] == config.block_out_channels == (8, 8)
    assert (config.scaling_factor, config.shift_factor) == (0.18215, None)
