"""The recipes, and all stages together on the smallest one."""

import json
from pathlib import Path

import pytest
import torch

from latentsync.config.load import load_config
from latentsync.errors import ConfigError
from latentsync.models.vae import load_vae
from latentsync.training.demo.config import load_demo_config
from latentsync.training.demo.run import STAGES, DemoRun
from latentsync.whisper.audio_encoder import load_audio_encoder

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_recipe_makes_the_encoders_that_inference_expects() -> None:
    recipe = load_demo_config(CONFIGS / "training" / "demo.yaml")
    inference = load_config(CONFIGS / "unet" / "demo.yaml")
    assert recipe.audio.dims.n_audio_state == inference.model.cross_attention_dim
    assert recipe.clips.resolution == inference.data.resolution


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="vae.*colour"):
        load_demo_config(CONFIGS / "training" / "demo.yaml", ("vae.colour=blue",))


def test_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_demo_config(tmp_path / "none.yaml")


def test_stage_without_speech_says_what_to_do(tmp_path: Path) -> None:
    recipe = load_demo_config(CONFIGS / "training" / "tiny.yaml")
    with pytest.raises(ConfigError, match="speech"):
        STAGES["audio"](DemoRun(recipe, tmp_path, torch.device("cpu")), 1.0)


def test_all_stages_leave_files_that_inference_loads(tmp_path: Path) -> None:
    recipe = load_demo_config(CONFIGS / "training" / "tiny.yaml", ("max_steps=1",))
    run = DemoRun(recipe, tmp_path, torch.device("cpu"))
    for stage in STAGES.values():
        stage(run, 600.0)
    files = tmp_path / "demo"
    vae = load_vae(files / "vae", "cpu", torch.float32)
    encoder = load_audio_encoder(files / "audio_encoder.safetensors", "cpu", torch.float32, 32)
    assert encoder.dims == recipe.audio.dims
    assert float(vae.config.scaling_factor) != pytest.approx(0.18215)
    metrics = json.loads((tmp_path / "report" / "validation.json").read_text())
    assert set(metrics) == {"audio", "vae"} and metrics["vae"]["steps"] == 1
    assert metrics["vae"]["latent_std"] == pytest.approx(1.0, abs=0.5)
    assert {path.name for path in (tmp_path / "report").glob("*.jpg")} == {"vae_sheet.jpg"}
