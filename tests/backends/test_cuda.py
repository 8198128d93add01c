"""What is prepared for CUDA and can be seen without it."""

import os
from pathlib import Path

import pytest
import torch

from latentsync.backends.cuda import keep_compiled_code, pack_unet, prepare_vae
from latentsync.backends.predictor import UNetPredictor
from latentsync.models.unet import resnet
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
def test_a_packed_unet_predicts_the_same(monkeypatch, compiled, guidance_scale):
    monkeypatch.setattr(resnet, "_FEWEST_CHANNELS", 32)
    unet = small_unet()
    for parameter in unet.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    names, audio = set(unet.state_dict()), torch.randn(2, 4, 5, 24)
    latents, fixed = torch.randn(2, 4, 4, 8, 8), torch.randn(2, 9, 4, 8, 8)

    def predict():
        predictor = UNetPredictor(unet)
        predictor.begin(fixed, audio)
        full = predictor.predict(latents, 501, guidance_scale, "keep")
        return full, predictor.predict(latents, 401, guidance_scale, "reuse")

    expected = predict()
    if compiled:
        use_plain_kernels(monkeypatch)
    pack_unet(unet, compiled=compiled)
    torch.testing.assert_close(predict(), expected, atol=1e-4, rtol=1e-3)
    assert set(unet.state_dict()) == names, "published files know nothing of it"


@torch.no_grad()
def test_a_prepared_vae_gives_the_same_pictures():
    vae = golden_vae()
    latents, pixels = torch.randn(2, 4, 4, 6), torch.randn(2, 3, 16, 24)
    expected = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    prepare_vae(vae, compiled=False)
    found = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
