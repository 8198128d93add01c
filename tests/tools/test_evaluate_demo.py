"""The three phases of the evaluation in one folder, with tiny networks."""

import json
from pathlib import Path

import pytest

from tests.tiny_models import TinyModels, write_tiny_models
from tests.tiny_syncnet import write_tiny_syncnet
from tools.evaluate_demo import main

SCENES = ["--clips", "1", "--bundled_clips", "0", "--seconds", "1.4", "--size", "128", "--seed", "5"]


@pytest.fixture
def models(tmp_path: Path) -> TinyModels:
    return write_tiny_models(tmp_path / "models")


def test_phases_resume_from_a_shared_folder(models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    keep, strips, out = tmp_path / "kept", tmp_path / "strips", tmp_path / "metrics.json"
    options = [*models.options, *SCENES, "--keep", str(keep), "--detector", "known"]
    assert main([*options, "--prepare_only"]) == 0
    case = keep / "held_out_5_000"
    rendered_at = (case / "truth.mp4").stat().st_mtime_ns
    assert not (case / "result.mp4").exists()
    assert main([*options, "--generate_only"]) == 0
    assert (case / "truth.mp4").stat().st_mtime_ns == rendered_at
    assert capsys.readouterr().out == ""

    config, weights = write_tiny_syncnet(tmp_path)
    syncnet = ["--syncnet_config_path", str(config), "--syncnet_ckpt_path", str(weights)]
    assert main(["--measure_only", "--keep", str(keep), *syncnet, "--strips", str(strips), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["settings"]["detector"] == "known"
    assert report["settings"]["steps"] == 1
    (clip,) = report["clips"]
    assert clip["clip"] == "held_out_5_000"
    assert {"r", "psnr_mouth", "flicker", "sync_conf", "sync_conf_true"} <= clip.keys()
    # Random networks generate noise, which is worse than the unmodified source.
    assert clip["psnr_mouth"] < clip["psnr_mouth_source"]
    assert report["mean"]["held_out"]["sync_ratio"] > 0
    assert [path.name for path in strips.iterdir()] == ["held_out_5_000.jpg"]


def test_scenes_with_other_options_are_rejected(models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = [*models.options, "--keep", str(tmp_path / "kept"), "--prepare_only"]
    assert main([*options, *SCENES]) == 0
    assert main([*options, *SCENES, "--seconds", "1.8"]) == 1
    assert "holds a case of 35 frames" in capsys.readouterr().err


def test_single_phase_requires_a_folder(capsys: pytest.CaptureFixture[str]):
    assert main(["--measure_only"]) == 1
    assert "--keep FOLDER" in capsys.readouterr().err


def test_empty_folder_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--measure_only", "--keep", str(tmp_path)]) == 1
    assert "Nothing to measure" in capsys.readouterr().err
