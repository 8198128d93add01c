"""The front door: a lazy package, models by name or folder, calls, and the page that documents them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import latentsync
from latentsync import api
from latentsync.build.presets import PRESETS, folder_files, preset_files
from latentsync.checkpoints.registry import default_root
from latentsync.config.load import load_config
from latentsync.diffusion.solvers import SOLVERS, DdimStep, register_solver
from latentsync.errors import Cancelled, CheckpointError, ConfigError
from latentsync.face.detection.mediapipe_detector import MediapipeDetector
from latentsync.pipelines.job import ModelDefaults
from latentsync.runtime.resources import REPOSITORY
from tests.tiny_models import TinyModels, write_tiny_models

VIDEO = REPOSITORY / "assets" / "demo_video.mp4"
SPEECH = REPOSITORY / "assets" / "demo_speech.wav"
PAGE = REPOSITORY / "docs" / "python_api.md"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return write_tiny_models(tmp_path_factory.mktemp("models") / "weights")


@pytest.fixture(scope="module")
def folder(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a U-Net only."""
    path = tmp_path_factory.mktemp("folder") / "mine"
    path.mkdir()
    (path / "config.yaml").write_text(models.config.read_text())
    (path / "unet.safetensors").write_bytes(models.unet.read_bytes())
    return path


@pytest.fixture(scope="module")
def pipe(models: TinyModels, folder: Path) -> latentsync.LipsyncPipeline:
    return latentsync.LipsyncPipeline.from_pretrained(str(folder), checkpoints=models.root, device="cpu")


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_importing_the_package_imports_no_library() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'omegaconf', 'av') if name in sys.modules]"
    assert run_python(f"import sys, latentsync; latentsync.errors; print({heavy})") == "[]"
    needs_no_torch = "latentsync.available_models(), latentsync.LipsyncJob.json_schema(), latentsync.load_pipeline"
    code = f"import sys, latentsync; {needs_no_torch}, latentsync.__version__; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_public_names_are_there_and_others_are_not() -> None:
    assert all(getattr(latentsync, name) is not None for name in latentsync.__all__)
    assert set(latentsync.__all__) <= set(dir(latentsync))
    stub = (REPOSITORY / "latentsync" / "__init__.pyi").read_text()
    stubbed = {name for pair in re.findall(r" as (\w+)$|^(\w+):", stub, re.MULTILINE) for name in pair if name}
    assert stubbed == {*latentsync.__all__, "__all__"}
    with pytest.raises(AttributeError, match="no attribute 'lipsync'"):
        latentsync.lipsync  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    assert f'version = "{latentsync.__version__}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_models_are_listed_with_their_weights(tmp_path: Path) -> None:
    listed = latentsync.available_models()
    assert [model.name for model in listed] == list(PRESETS)
    for model in listed:
        config = load_config(PRESETS[model.name].config_path)
        assert model.resolution == config.data.resolution and model.licence
        assert model.present == all(model.files.values())
    assert latentsync.available_models(default_root())[-1].present
    assert not any(model.present for model in latentsync.available_models(str(tmp_path)))
    assert set(latentsync.available_models(tmp_path)[0].files.values()) == {None}


def test_without_a_name_the_best_complete_preset_is_loaded(tmp_path: Path) -> None:
    assert preset_files(None, default_root()).name == next(m.name for m in latentsync.available_models() if m.present)
    with pytest.raises(CheckpointError, match="demo-unet is missing"):
        latentsync.load_pipeline(checkpoints=tmp_path)


def test_a_call_makes_a_video_with_the_models_own_defaults(pipe: latentsync.LipsyncPipeline, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = pipe(str(VIDEO), SPEECH, str(tmp_path / "out.mp4"), preview=0.12, progress=lambda *done: seen.append(done))
    assert result.num_frames == 3 and result.video_out_path.is_file()
    assert seen == [(done, 3) for done in range(4)]
    assert pipe.defaults == ModelDefaults(inference_steps=1, guidance_scale=1.0, seed=1247)
    assert (result.settings["inference_steps"], result.settings["model"], pipe.name) == (1, "mine", "mine")


def test_bad_options_are_refused_before_anything_is_done(pipe: latentsync.LipsyncPipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown guidance; known: video_path"):
        pipe(VIDEO, SPEECH, tmp_path / "out.mp4", guidance=2)
    with pytest.raises(ConfigError, match="crf: got 60, expected a whole number from 0 to 51"):
        pipe(VIDEO, SPEECH, tmp_path / "out.mp4", crf=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("1.7", {}, "got '1.7'; expected 1.6, 1.5, demo or an existing model folder"),
        ("demo", {"device": "toaster"}, "Device 'toaster' cannot be used"),
        ("demo", {"dtype": "int8"}, "Unknown precision 'int8'"),
        ("demo", {"detector": "haar"}, "Unknown face detector 'haar'"),
        ("demo", {"memory": "little", "device": "cpu"}, "expected usual or low"),
    ],
)
def test_options_that_cannot_be_used_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        latentsync.load_pipeline(name, **options)


def test_folders_without_configuration_or_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="got no config.yaml"):
        latentsync.load_pipeline(tmp_path)
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match="expected unet.safetensors or unet.pt"):
        latentsync.load_pipeline(tmp_path)
    (tmp_path / "unet.pt").touch()
    with pytest.raises(CheckpointError, match="demo-audio-encoder is missing"):
        latentsync.load_pipeline(tmp_path, checkpoints=tmp_path)


def test_a_saved_model_is_whole_and_loads_again(
    pipe: latentsync.LipsyncPipeline, models: TinyModels, tmp_path: Path
) -> None:
    saved = pipe.save_pretrained(str(tmp_path / "new" / "saved"))
    assert {path.name for path in saved.iterdir()} == {
        "config.yaml",
        "unet.safetensors",
        "audio_encoder.safetensors",
        "vae",
    }
    with latentsync.LipsyncPipeline.from_pretrained(saved, checkpoints=tmp_path, device="cpu") as again:
        assert again.save_pretrained(saved) == saved and (saved / "unet.safetensors").is_file()  # onto itself
        ours = again(VIDEO, SPEECH, tmp_path / "again.mp4", preview=0.12)
    theirs = pipe(VIDEO, SPEECH, tmp_path / "first.mp4", preview=0.12)
    assert ours.video_out_path.read_bytes() == theirs.video_out_path.read_bytes()
    assert folder_files(saved, tmp_path).vae == saved / "vae"
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        pipe.save_pretrained(tmp_path / "file")


def test_a_detector_of_ones_own_is_one_class(models: TinyModels, folder: Path, tmp_path: Path) -> None:
    made: list[MediapipeDetector] = []

    class Counted(MediapipeDetector):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    options: dict[str, Any] = {"checkpoints": models.root, "device": torch.device("cpu"), "dtype": torch.float32}
    with latentsync.load_pipeline(folder, detector=Counted, **options) as pipe:
        assert made == []
        pipe(VIDEO, SPEECH, tmp_path / "out.mp4", preview=0.12)
    assert len(made) == 1


def test_a_solver_of_ones_own_makes_a_video(
    pipe: latentsync.LipsyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOLVERS, "mine", SOLVERS["ddim"])  # removes ours again
    levels_seen: list[int] = []

    def one_order(levels: Sequence[float], restarts: Collection[int]) -> list[DdimStep]:
        levels_seen.append(len(levels))
        return [DdimStep(*pair) for pair in pairwise(levels)]

    register_solver("mine", one_order)
    result = pipe(VIDEO, SPEECH, tmp_path / "out.mp4", preview=0.12, solver="mine", inference_steps=3)
    assert (result.settings["solver"], result.generated_frames, levels_seen) == ("mine", 3, [4])


def test_a_closed_pipeline_says_so(models: TinyModels, folder: Path, tmp_path: Path) -> None:
    pipe = latentsync.load_pipeline(folder, checkpoints=models.root, device="cpu,cpu")
    assert pipe(VIDEO, SPEECH, tmp_path / "out.mp4", preview=0.12).settings["device"] == "cpu,cpu"
    assert repr(pipe) == "<LipsyncPipeline 'mine', device='cpu,cpu'>"
    pipe.close()
    pipe.close()
    assert repr(pipe) == "<LipsyncPipeline 'mine', closed>"
    with pytest.raises(ConfigError, match="model mine is closed"):
        pipe(VIDEO, SPEECH, tmp_path / "two.mp4")


def test_every_snippet_of_the_page_runs(
    models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The page's demo model takes minutes on a CPU; everything else is what a reader runs.
    monkeypatch.setitem(PRESETS, "demo", replace(PRESETS["demo"], config=str(models.config)))
    monkeypatch.setattr(api, "default_root", lambda: models.root)
    monkeypatch.setitem(SOLVERS, "euler", SOLVERS["ddim"])  # removes the page's own again
    (tmp_path / "assets").symlink_to(REPOSITORY / "assets")
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.finditer(r"```python\n(.*?)```", page, re.DOTALL):
        # Padded so that a traceback shows the line of the page.
        code = "\n" * page[: block.start(1)].count("\n") + block[1]
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    made = {path.name for path in tmp_path.glob("*.mp4")}
    assert made == {"out.mp4", "job.mp4", "first.mp4", "fixed.mp4", "euler.mp4"}
    printed = capsys.readouterr().out
    assert "second.mp4: Audio file missing.wav does not exist" in printed and "cancelled.mp4: cancelled" in printed
    with pytest.raises(Cancelled):
        names["pipe"](VIDEO, SPEECH, "late.mp4", cancel=names["cancel"])
    names["pipe"].close()
