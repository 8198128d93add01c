"""Packing trained networks as a demo model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentsync.models.weights.published_layout import save_published
from tests.tiny_models import TinyModels, write_tiny_models
from tests.tiny_syncnet import write_tiny_syncnet
from tools.pack_demo import main


@pytest.fixture
def trained(tmp_path: Path) -> tuple[TinyModels, list[str]]:
    models = write_tiny_models(tmp_path / "models")
    config, syncnet = write_tiny_syncnet(tmp_path)
    files = {"unet": models.unet, "syncnet": syncnet}
    options = ["--unet_config", str(models.config), "--syncnet_config", str(config)]
    options += ["--encoders", str(models.root / "demo")]
    for name, path in files.items():
        options += [f"--{name}", str(save_published(load_file(path), tmp_path / f"{name}-7.pt", 7))]
    return models, options


def test_all_networks_are_packed_in_half_precision(trained: tuple[TinyModels, list[str]], tmp_path: Path) -> None:
    models, options = trained
    out = tmp_path / "new" / "demo"
    assert main([*options, "--out", str(out)]) == 0
    packed = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    vae = {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert packed == vae | {"audio_encoder.safetensors", "unet.safetensors", "syncnet.safetensors"}
    before, after = load_file(models.unet), load_file(out / "unet.safetensors")
    assert all(torch.equal(before[name].half(), after[name]) for name in before) and len(before) == len(after)
    assert (out / "vae" / "config.json").read_bytes() == (models.root / "demo" / "vae" / "config.json").read_bytes()


def test_files_that_are_there_stay_unless_asked(
    trained: tuple[TinyModels, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, options = trained
    (tmp_path / "demo").mkdir()
    mine = tmp_path / "demo" / "unet.safetensors"
    mine.write_bytes(b"mine")
    assert main([*options, "--out", str(tmp_path / "demo")]) == 1
    assert "already holds unet.safetensors" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine" and len(list((tmp_path / "demo").iterdir())) == 1
    assert main([*options, "--out", str(tmp_path / "demo"), "--overwrite"]) == 0
    assert load_file(mine)


def test_weights_of_another_network_are_refused(
    trained: tuple[TinyModels, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, options = trained
    swapped = [*options[:-3], str(tmp_path / "syncnet-7.pt"), *options[-2:]]
    assert main([*swapped, "--out", str(tmp_path / "demo")]) == 1
    assert "syncnet-7.pt" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_nothing_to_pack_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "demo")]) == 1
    assert "--encoders" in capsys.readouterr().err
