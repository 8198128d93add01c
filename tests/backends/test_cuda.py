"""Networks prepared for CUDA, run on the CPU with plain formulas for kernels."""

import os
from pathlib import Path

import pytest
import torch

from latentsync.backends.cuda import keep_compiled_code, prepare_unet, prepare_vae
from latentsync.backends.fused import resnet
from latentsync.backends.predictor import UNetPredictor
from tests.models.builders import golden_vae, small_unet
from tests.models.plain_kernels import use_plain_kernels


def test_compiled_code_is_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # or the folder of this test would stay set
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    keep_compiled_code()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == tmp_path / "latentsync" / "compiled" / "inductor"
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"


@torch.no_grad()
@pytest.mark.parametrize("guidance_scale", [1.0, 1.5])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"add_audio_layer": False},
        {"use_motion_module": False},
        {"motion_module_decoder_only": True},
        {"motion_module_mid_block": True, "motion_num_transformer_block": 2},
    ],
    ids=["stage2", "without audio", "stage1", "decoder only", "middle and two blocks"],
)
def test_a_fused_unet_predicts_the_same(monkeypatch, changes, compiled, guidance_scale):
    monkeypatch.setattr(resnet, "MIN_WINOGRAD_CHANNELS", 32)
    unet = small_unet(**changes).double()
    for parameter in unet.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    state_dict = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    audio = torch.randn(2, 4, 5, 24).double()
    latents, conditioning = torch.randn(2, 4, 4, 8, 8).double(), torch.randn(2, 9, 4, 8, 8).double()

    def predict():
        predictor = UNetPredictor(unet)
        predictor.begin(conditioning, audio)
        full = predictor.predict(latents, 501, guidance_scale, "keep")
        return full, predictor.predict(latents, 401, guidance_scale, "reuse")

    expected = predict()
    if compiled:
        use_plain_kernels(monkeypatch)
    prepare_unet(unet, compiled=compiled)
    for found, wanted in zip(predict(), expected, strict=True):
        assert (found - wanted).norm() < 1e-6 * wanted.norm()
    torch.testing.assert_close(dict(unet.state_dict()), state_dict, atol=0, rtol=0)


@torch.no_grad()
def test_a_prepared_vae_gives_the_same_images():
    vae = golden_vae()
    latents, pixels = torch.randn(2, 4, 4, 6), torch.randn(2, 3, 16, 24)
    expected = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    prepare_vae(vae, compiled=False)
    found = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
