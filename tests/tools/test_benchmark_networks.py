"""Measuring the networks alone, on tiny ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import TinyModels, write_tiny_models
from tools.benchmark_networks import main


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Tiny networks whose U-Net, unlike a fresh one, predicts something."""
    models = write_tiny_models(tmp_path_factory.mktemp("networks") / "models")
    weights = load_file(models.unet)
    draw = torch.Generator().manual_seed(0)
    for name in ("conv_in.weight", "conv_out.weight"):
        weights[name] = 0.1 * torch.randn(weights[name].shape, generator=draw)
    save_file(weights, models.unet)
    return models


def measured(models: TinyModels, out: Path, dtype: str) -> dict[str, Any]:
    arguments = ["--repeats", "2", "--warm_up", "1", "--dtype", dtype, "--out", str(out), *models.options]
    assert main(arguments) == 0
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_every_call_has_a_time_and_an_error(models: TinyModels, tmp_path: Path) -> None:
    exact = measured(models, tmp_path / "new" / "exact.json", "float32")["calls"]
    rounded = measured(models, tmp_path / "rounded.json", "bfloat16")["calls"]
    assert len(exact) == 6 and exact.keys() == rounded.keys()
    for name, call in exact.items():
        assert call["ms"] > 0 and call["first_ms"] > 0
        assert call["relative_error"] < 1e-4 < rounded[name]["relative_error"] < 0.2, name


def test_earlier_figures_are_kept(models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "networks.json"
    out.write_text("mine")
    assert main(["--out", str(out), *models.options]) == 1
    assert "exists already" in capsys.readouterr().err and out.read_text() == "mine"
