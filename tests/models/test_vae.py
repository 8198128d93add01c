import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from latentsync.errors import CheckpointError
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.vae import PUBLISHED_CONFIG, LatentCodec, decode_latents, encode_latents, load_vae
from tests.golden_files import load_golden, load_manifest

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_folder(folder: Path, rename: dict[str, str] | None = None, suffix: str = "safetensors") -> Path:
    """The tiny golden VAE as a diffusers folder, on request with the older names of its attention."""
    weights = load_golden("vae_tiny_weights")
    state_dict = {}
    for key, tensor in weights.weights.items():
        for new, old in (rename or {}).items():
            key = key.replace(f".{new}.", f".{old}.") if "mid_block.attentions" in key else key
        state_dict[key] = tensor
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **weights.attrs}))
    path = folder / f"diffusion_pytorch_model.{suffix}"
    if suffix == "safetensors":
        save_file(state_dict, path)
    else:
        torch.save(state_dict, path)
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("rename", [None, OLD_NAMES], ids=["current", "old"])
@torch.no_grad()
def test_encoding_and_decoding_equal_the_published_vae(tmp_path, rename, suffix):
    case = load_golden("vae_tiny_encode_decode")
    vae = load_vae(write_folder(tmp_path / "vae", rename, suffix), "cpu", torch.float32)
    scale = 0.18215
    mean = encode_latents(vae, case.inputs["images"])
    case.check("mean", mean / scale)
    case.check("decoded", decode_latents(vae, case.inputs["latents"] * scale))
    noise = torch.randn_like(mean)
    sampled = encode_latents(vae, case.inputs["images"], noise)
    case.check("std", (sampled - mean) / scale / noise, atol=1e-3)


@torch.no_grad()
def test_chunk_size_changes_nothing(tmp_path):
    vae = load_vae(write_folder(tmp_path / "vae"), "cpu", torch.float32)
    pixels, noise = torch.rand(5, 3, 16, 24) * 2 - 1, torch.randn(5, 4, 2, 3)
    latents = encode_latents(vae, pixels, noise, chunk_size=5)
    torch.testing.assert_close(encode_latents(vae, pixels, noise, chunk_size=2), latents, atol=1e-5, rtol=1e-4)
    decoded = decode_latents(vae, latents, chunk_size=5)
    torch.testing.assert_close(decode_latents(vae, latents, chunk_size=2), decoded, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_latents_but_not_the_weights(tmp_path):
    vae = load_vae(write_folder(tmp_path / "vae"), "cpu", torch.float32)
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    decode_latents(vae, latents).square().mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_weights_file_with_a_config_beside_it_and_dtype(tmp_path):
    folder = write_folder(tmp_path / "vae")
    vae = load_vae(folder / "diffusion_pytorch_model.safetensors", "cpu", torch.bfloat16)
    assert {tensor.dtype for tensor in vae.state_dict().values()} == {torch.bfloat16}
    assert not vae.training


def test_a_lone_file_is_taken_for_the_published_vae(tmp_path):
    save_file({"quant_conv.weight": torch.zeros(8, 8, 1, 1)}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="sd-vae-ft-mse") as caught:
        load_vae(tmp_path / "vae.safetensors", "cpu", torch.float32)
    assert f"{len(load_manifest('vae_sd_ft_mse.json')) - 1} entries missing" in str(caught.value)


@pytest.mark.parametrize("left_out", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_incomplete_folder_is_refused(tmp_path, left_out):
    folder = write_folder(tmp_path / "vae")
    (folder / left_out).unlink()
    with pytest.raises(CheckpointError, match="folder"):
        load_vae(folder, "cpu", torch.float32)


def test_published_sizes_give_the_published_entries():
    manifest = load_manifest("vae_sd_ft_mse.json")
    with torch.device("meta"):
        vae = AutoencoderKL(VaeConfig.from_mapping(PUBLISHED_CONFIG))
    shapes = {key: tuple(tensor.shape) for key, tensor in vae.state_dict().items()}
    assert shapes == {key: tuple(entry["shape"]) for key, entry in manifest.items()}
    assert vae.config.scaling_factor == 0.18215


class AveragingCodec:
    """A codec that is no AutoencoderKL: latents are averages of 8x8 pixels and a brightness."""

    config = {"latent_channels": 4, "scaling_factor": 0.5, "shift_factor": 0.25}
    device, dtype = torch.device("cpu"), torch.float32

    def encode(self, x: torch.Tensor, /) -> SimpleNamespace:
        mean = F.avg_pool2d(torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1), 8)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.full_like(mean, 0.1)))

    def decode(self, z: torch.Tensor, /) -> SimpleNamespace:
        return SimpleNamespace(sample=F.interpolate(z[:, :3], scale_factor=8.0))


def test_another_codec_can_stand_in_for_the_autoencoder():
    codec: LatentCodec = AveragingCodec()
    pixels = F.interpolate(torch.rand(5, 3, 2, 3) * 2 - 1, scale_factor=8.0)
    latents = encode_latents(codec, pixels, chunk_size=2)
    torch.testing.assert_close(latents[:, :3], (F.avg_pool2d(pixels, 8) - 0.25) * 0.5)
    torch.testing.assert_close(decode_latents(codec, latents, chunk_size=3), pixels)
    noise = torch.randn(5, 4, 2, 3)
    torch.testing.assert_close(encode_latents(codec, pixels, noise) - latents, 0.1 * 0.5 * noise)
