"""The recipes, and all stages together on the smallest one."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentsync.config.load import load_config
from latentsync.errors import ConfigError
from latentsync.models.vae import load_vae
from latentsync.training.demo.config import load_demo_config
from latentsync.training.demo.run import STAGES, DemoRun
from latentsync.training.loop.curves import read_curves
from latentsync.whisper.audio_encoder import load_audio_encoder
from tools.train_demo import main

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TINY = CONFIGS / "training" / "tiny.yaml"


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
    recipe = load_demo_config(TINY)
    with pytest.raises(ConfigError, match="speech"):
        STAGES["audio"](DemoRun(recipe, tmp_path, torch.device("cpu")), 1.0)


def recipe_run(folder: Path, *overrides: str) -> DemoRun:
    """The tiny recipe at a constant learning rate, so that its steps do not depend on how many follow."""
    constant = ("audio.optimizer.lr_scheduler=constant", "audio.optimizer.lr_warmup_fraction=0", "speech.max_tracks=1")
    return DemoRun(load_demo_config(TINY, (*constant, *overrides)), folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """All stages, each of one step."""
    run = recipe_run(tmp_path_factory.mktemp("demo"), "max_steps=1")
    assert all(stage(run, 600.0) for stage in STAGES.values())
    return run


def curve(run: DemoRun, stage: str, kind: str) -> list[dict[str, float]]:
    return [line[kind] for line in read_curves(run.folder / stage / "curves.jsonl") if kind in line]


def test_all_stages_leave_files_that_inference_loads(finished: DemoRun) -> None:
    files = finished.trained
    vae = load_vae(files / "vae", "cpu", torch.float32)
    encoder = load_audio_encoder(files / "audio_encoder.safetensors", "cpu", torch.float32, 32)
    assert encoder.dims == finished.config.audio.dims
    assert float(vae.config.scaling_factor) != pytest.approx(0.18215)
    faces = torch.rand(8, 3, 64, 64) * 2 - 1
    assert torch.isfinite(vae.encode(faces).latent_dist.mean).all()


def test_stages_are_runs_like_any_other(finished: DemoRun) -> None:
    assert set(curve(finished, "vae", "train")[0]) == {"total", "pixel", "coarse", "gradient", "kl"}
    assert set(curve(finished, "vae", "validation")[0]) == {"psnr", "psnr_repainted"}
    names = {f"{name}_{kind}" for name in ("accuracy", "opening_r") for kind in ("clean", "distorted")}
    assert set(curve(finished, "audio", "validation")[0]) == names
    assert (finished.folder / "vae" / "samples" / "vae-1.jpg").is_file()
    for stage in ("audio", "vae"):
        folder = finished.folder / stage
        assert (folder / "charts" / f"{stage}.png").is_file() and (folder / "config.yaml").is_file()
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000001"]


def test_one_step_of_audio_and_one_more_are_two(finished: DemoRun, tmp_path: Path) -> None:
    results = []
    for name in ("whole", "parts"):
        shutil.copytree(finished.folder / "speech", tmp_path / name / "speech")
        if name == "parts":
            shutil.copytree(finished.folder / "audio", tmp_path / name / "audio")
        assert STAGES["audio"](recipe_run(tmp_path / name, "max_steps=2"), 600.0)
        results.append(load_file(tmp_path / name / "demo" / "audio_encoder.safetensors"))
    first, second = results
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_vae_stage_resumes_and_refuses_other_settings(
    finished: DemoRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished.folder / "vae", tmp_path / "vae")
    with caplog.at_level(logging.INFO):
        assert STAGES["vae"](recipe_run(tmp_path, "max_steps=2"), 600.0)
    assert "after step 1" in caplog.text
    assert [line["step"] for line in read_curves(tmp_path / "vae" / "curves.jsonl") if "train" in line] == [1, 2]
    with pytest.raises(ConfigError, match="vae.kl_weight"):
        STAGES["vae"](recipe_run(tmp_path, "max_steps=3", "vae.kl_weight=0.5"), 600.0)


def test_the_command_runs_every_stage_once(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--tiny", "--device", "cpu", "--set", "max_steps=1", "speech.max_tracks=1"]
    assert main(words) == 0
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.safetensors")}
    assert {path.name for path in written} == {"audio_encoder.safetensors", "diffusion_pytorch_model.safetensors"}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
