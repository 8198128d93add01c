import copy

import pytest
import torch

from latentsync.backends.cpu import arrange_for_cpu
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.vae import decode_latents, encode_latents
from tests.golden_files import load_golden


def pair(dtype: torch.dtype) -> tuple[AutoencoderKL, AutoencoderKL]:
    """The tiny golden VAE in dtype, as it is and arranged."""
    weights = load_golden("vae_tiny_weights")
    plain = AutoencoderKL(VaeConfig.from_mapping(weights.attrs)).eval().to(dtype)
    plain.load_state_dict(weights.weights)
    arranged = copy.deepcopy(plain)
    arrange_for_cpu(arranged)
    return plain, arranged


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.inference_mode()
def test_arranged_vae_is_the_same_function(dtype):
    plain, arranged = pair(dtype)
    pixels = torch.rand(3, 3, 32, 48, dtype=dtype) * 2 - 1
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    latents = encode_latents(plain, pixels)
    torch.testing.assert_close(encode_latents(arranged, pixels), latents, atol=atol, rtol=1e-4)
    torch.testing.assert_close(decode_latents(arranged, latents), decode_latents(plain, latents), atol=atol, rtol=1e-4)


@torch.inference_mode()
def test_in_bfloat16_it_is_as_near_to_the_truth_as_before():
    plain, arranged = pair(torch.bfloat16)
    true, _ = pair(torch.float32)
    pixels = torch.rand(3, 3, 32, 48) * 2 - 1
    latents = encode_latents(true, pixels)
    for run, given in ((encode_latents, pixels), (decode_latents, latents)):
        expected = run(true, given)
        before = (run(plain, given.bfloat16()).float() - expected).abs().mean()
        after = run(arranged, given.bfloat16())
        assert after.dtype == torch.bfloat16
        assert (after.float() - expected).abs().mean() <= 1.2 * before


@torch.inference_mode()
def test_what_goes_in_is_left_as_it_was():
    _, arranged = pair(torch.float32)
    pixels, latents = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 2, 2)
    given = pixels.clone(), latents.clone()
    encode_latents(arranged, pixels)
    decode_latents(arranged, latents)
    assert torch.equal(pixels, given[0])
    assert torch.equal(latents, given[1])
