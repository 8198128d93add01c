"""What is prepared for CUDA and can be seen without it."""

import os
from pathlib import Path

import torch

from latentsync.models.cuda import keep_compiled_code, prepare_vae
from tests.models.builders import golden_vae


def test_compiled_code_is_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # or the folder of this test would stay set
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    keep_compiled_code()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == tmp_path / "latentsync" / "compiled" / "inductor"
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"


@torch.no_grad()
def test_a_prepared_vae_gives_the_same_pictures():
    vae = golden_vae()
    latents, pixels = torch.randn(2, 4, 4, 6), torch.randn(2, 3, 16, 24)
    expected = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    prepare_vae(vae, compiled=False)
    found = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
