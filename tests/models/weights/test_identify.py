import re

import pytest
import torch

from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.weights.identify import describe_state_dict
from tests.golden_files import load_manifest
from tests.models.builders import SMALL_SPEC


def manifest_tensors(name):
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in load_manifest(name).items()}


def unet_tensors(spec):
    with torch.device("meta"):
        return UNet3DConditionModel(spec).state_dict()


@pytest.mark.parametrize(
    ("spec", "config"),
    [
        (UNetSpec(use_motion_module=False), "stage1,"),
        (UNetSpec(), "stage2,"),
        (UNetSpec(motion_module_decoder_only=True), "stage2_efficient"),
        (SMALL_SPEC, "demo"),
        (UNetSpec(in_channels=9, cross_attention_dim=768, use_motion_module=False), "Stable Diffusion"),
    ],
)
def test_unets_are_told_apart(spec, config):
    assert config in describe_state_dict(unet_tensors(spec))


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("stable_syncnet_16_latent.json", "StableSyncNet.*16_latent"),
        ("stable_syncnet_16_pixel.json", "StableSyncNet.*16_pixel[)]"),
        ("stable_syncnet_16_pixel_attn.json", "StableSyncNet.*16_pixel_attn"),
        ("stable_syncnet_25_pixel.json", "StableSyncNet.*25_pixel"),
        ("vae_sd_ft_mse.json", "VAE"),
        ("whisper_tiny_encoder.json", "Whisper"),
        ("whisper_tiny.json", "Whisper"),
        ("eval_syncnet_v2.json", "syncnet_v2"),
        ("s3fd.json", "S3FD"),
        ("hyper_iqa.json", "hyperIQA"),
        ("videomaev2_vit_g.json", "VideoMAE"),
        ("wav2lip_syncnet.json", "Wav2Lip"),
    ],
)
def test_every_published_file_is_recognised(manifest, words):
    assert re.search(words, describe_state_dict(manifest_tensors(manifest)))


def test_prefix_of_distributed_training_is_named():
    wrapped = {f"module.{key}": tensor for key, tensor in unet_tensors(SMALL_SPEC).items()}
    described = describe_state_dict(wrapped)
    assert "lip-sync U-Net" in described
    assert "module." in described


@pytest.mark.parametrize("state_dict", [{}, {"conv_in.weight": torch.zeros(())}, {"a": torch.zeros(2)}])
def test_unknown_weights_are_called_unknown(state_dict):
    assert "none of the known" in describe_state_dict(state_dict)
