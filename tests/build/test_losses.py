"""Losses by configuration: the published keys, and classes from outside the package."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from latentsync.build.losses import build_syncnet_objective, build_unet_objective, unet_loss_needs, unet_losses
from latentsync.build.networks import FrozenNetworks
from latentsync.cli.train import train_syncnet, train_unet
from latentsync.config.load import Config, SyncNetConfig, load_config
from latentsync.config.sections import LossConfig
from latentsync.errors import ConfigError
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.runtime.resources import REPOSITORY
from latentsync.training.loop.curves import read_curves
from tests.models.builders import golden_vae
from tests.training.tiny_training import TinyTraining

MODULE = """
from torch import nn


class EmbeddingSize(nn.Module):
    def forward(self, inputs):
        return (inputs.vision_embeds[:, 0] ** 2).mean()


class Needy:
    needs = {"taste"}

    def __call__(self, inputs):
        return inputs.prediction.mean()


def function(inputs):
    return inputs.prediction.mean()
"""


def documented(language: str) -> str:
    """The example of docs/training.md."""
    section = (REPOSITORY / "docs" / "training.md").read_text("utf-8").split("## Add a loss")[1]
    return section.split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable module outside the package, beside the one that the documentation shows."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "own_losses.py").write_text(MODULE)
    (tmp_path / "outside" / "my_losses.py").write_text(documented("python"))
    monkeypatch.syspath_prepend(tmp_path / "outside")
    return "own_losses"


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    package = logging.getLogger("latentsync")
    level = package.level
    yield
    package.setLevel(level)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    (file,) = (run / "checkpoints" / "step_00000003").glob("*-*.pt")
    return read_state_dict(file)


def write_config(folder: Path, base: Path, losses: dict) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"base": str(base), "losses": losses}))
    return str(path)


@pytest.mark.usefixtures("own_module")
def test_the_documented_loss_trains_the_unet(
    tiny_training: TinyTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses = yaml.safe_load(documented("yaml"))["losses"]
    words = [write_config(tmp_path, tiny_training.unet, losses), "--device", "cpu"]
    words += ["run.max_train_steps=3", f"data.train_output_dir={tmp_path / 'with'}"]
    assert train_unet(words) == 0
    assert train_unet([*words, f"data.train_output_dir={tmp_path / 'without'}", "losses.mouth_flicker.weight=0"]) == 0
    curves = {run: read_curves(tmp_path / run / "curves.jsonl") for run in ("with", "without")}
    shown, plain = (next(line["train"] for line in curves[run] if "train" in line) for run in ("with", "without"))
    assert set(shown) - set(plain) == {"mouth_flicker"} and shown["mouth_flicker"] > 0
    first, second = last_weights(tmp_path / "with"), last_weights(tmp_path / "without")
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    # The losses are part of what a run learns, so they must not change when it resumes.
    assert train_unet([*words, "losses.mouth_flicker.weight=2"]) == 1
    assert "losses.mouth_flicker.weight: was 0.1, is 2.0" in caplog.text


def test_a_loss_from_outside_trains_the_syncnet(tiny_training: TinyTraining, own_module: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_training.syncnet, {"size": {"target": f"{own_module}.EmbeddingSize"}})
    words = [config, "--device", "cpu", "run.max_train_steps=1", f"data.train_output_dir={tmp_path / 'run'}"]
    assert train_syncnet(words) == 0
    terms = next(line["train"] for line in read_curves(tmp_path / "run" / "curves.jsonl") if "train" in line)
    assert set(terms) == {"bce", "size", "total", "accuracy"}


def test_published_keys_become_entries() -> None:
    shipped = load_config(REPOSITORY / "configs" / "unet" / "stage2.yaml")
    entries = unet_losses(shipped)
    assert {name: (entry.target, entry.weight) for name, entry in entries.items()} == {
        "recon": ("recon", 1.0),
        "sync": ("sync", 0.05),
        "perceptual": ("lpips", 0.1),
        "trepa": ("trepa", 10.0),
    }
    assert unet_loss_needs(shipped) == {"mel", "syncnet", "lpips", "videomae"}
    first = load_config(REPOSITORY / "configs" / "unet" / "stage1.yaml")
    assert list(unet_losses(first)) == ["recon"] and unet_loss_needs(first) == frozenset()


def test_a_shipped_loss_can_be_added_again_by_its_short_name() -> None:
    config = Config(losses={"coarse": LossConfig("pyramid", 0.5, {"levels": 1}), "off": LossConfig("nowhere.Loss", 0)})
    objective = build_unet_objective(config, FrozenNetworks(golden_vae(), None), 4)
    assert objective.weights == {"recon": 1.0, "coarse": 0.5}
    assert objective.losses["coarse"].pyramid.levels == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("mine", LossConfig("taste"), "'taste' is neither one of lpips, motion, .* nor a dotted path"),
        ("mine", LossConfig(""), "losses.mine.target is empty"),
        ("mine", LossConfig("nowhere.to.be.Found"), "cannot import 'nowhere.to.be.Found'.*PYTHONPATH"),
        ("mine", LossConfig("own_losses.Missing"), "cannot import 'own_losses.Missing'"),
        ("mine", LossConfig("own_losses.function"), "is function, expected a class"),
        ("mine", LossConfig("own_losses.Needy"), r"needs \['taste'\].*can only need \['lpips', 'mel'"),
        ("mine", LossConfig("my_losses.MouthFlicker", 1.0, {"power": 3}), r"MouthFlicker\(radius: int = 1\).*'power'"),
        ("recon", LossConfig("my_losses.MouthFlicker"), "losses.recon: the name is taken"),
        ("total", LossConfig("my_losses.MouthFlicker"), "losses.total: the name is taken"),
    ],
)
def test_entries_that_cannot_be_are_explained(own_module: str, name: str, entry: LossConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_unet_objective(Config(losses={name: entry}), FrozenNetworks(golden_vae(), None), 4)


def test_a_critic_that_a_training_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError, match=r"losses.x: .*lpips"):
        build_syncnet_objective(SyncNetConfig(losses={"x": LossConfig("latentsync.losses.terms.LpipsTerm")}))
