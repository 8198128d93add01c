"""The whole recipe by one command, on networks so small that it takes seconds."""

from pathlib import Path

import pytest
import torch

from latentsync.build.networks import load_syncnet
from latentsync.build.specs import build_unet_spec
from latentsync.config.load import load_config, load_syncnet_config
from latentsync.models.unet.load import load_unet
from tests.training.tiny_training import TinyTraining, write_tiny_training
from tools.make_demo_model import main

STAGE2 = "run: {pixel_space_supervise: true, use_syncnet: true, pixel_loss_weight: 0.5}"


def write_recipe(training: TinyTraining, folder: Path) -> Path:
    """A folder laid out as configs/, of the tiny networks."""
    for name, text in {
        "unet/demo_gpu.yaml": f"base: {training.unet}",
        "unet/demo_gpu_stage2.yaml": f"base: demo_gpu.yaml\n{STAGE2}",
        "syncnet/demo_gpu.yaml": f"base: {training.syncnet}",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def test_corpus_trainings_and_packing_follow_each_other(tmp_path: Path) -> None:
    training = write_tiny_training(tmp_path / "tiny", scenes=1)
    recipe = write_recipe(training, tmp_path / "recipe")
    out = tmp_path / "run"
    words = ["--out", str(out), "--gpus", "--configs", str(recipe), "--encoders", str(training.models.root / "demo")]
    words += ["--scenes", "2", "--val_scenes", "1"]
    words += [
        "--extra",
        "corpus",
        "--resolution 64 --seconds 1.4 --workers 1",
        "--extra",
        "unet1",
        "run.max_train_steps=2",
    ]
    assert main(words) == 0
    model = out / "model"
    assert {path.name for path in model.iterdir()} == {
        "vae",
        "audio_encoder.safetensors",
        "unet.safetensors",
        "syncnet.safetensors",
    }
    spec = build_unet_spec(load_config(recipe / "unet" / "demo_gpu.yaml").model)
    load_unet(spec, model / "unet.safetensors", "cpu", torch.float32)
    load_syncnet(load_syncnet_config(recipe / "syncnet" / "demo_gpu.yaml"), model / "syncnet.safetensors")
    assert (out / "unet1" / "checkpoints" / "step_00000002").is_dir()
    assert "step_00000002/latentsync_unet-2.pt" in (out / "unet2" / "config.yaml").read_text()
    packed = (model / "unet.safetensors").stat().st_mtime_ns
    assert main(words) == 0
    assert (model / "unet.safetensors").stat().st_mtime_ns == packed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--extra", "unet3", "x=1"], "no such step"), (["--gpus", "0", "1", "2"], "two at most")],
)
def test_what_cannot_be_done_is_told(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "run"), *words]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
