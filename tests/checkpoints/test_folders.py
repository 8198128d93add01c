"""Search order of the checkpoint folders."""

from pathlib import Path

import pytest

from latentsync.checkpoints import folders
from latentsync.checkpoints.folders import default_root, search_folders
from latentsync.checkpoints.registry import resolve
from latentsync.runtime.resources import REPOSITORY


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("LATENTSYNC_HOME", raising=False)
    return tmp_path / "data" / "latentsync" / "checkpoints"


def test_standard_folders(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_folders() == (user, REPOSITORY / "checkpoints")
    home = tmp_path / "home"
    monkeypatch.setenv("LATENTSYNC_HOME", str(home))
    assert search_folders() == (home / "checkpoints", home, user, REPOSITORY / "checkpoints")
    assert search_folders(default_root()) == search_folders()


def test_a_given_folder_is_the_only_one(tmp_path: Path) -> None:
    assert search_folders(tmp_path / "mine") == (tmp_path / "mine",)


def test_downloads_go_to_the_first_folder_of_the_user(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_root() == REPOSITORY / "checkpoints"
    monkeypatch.setattr(folders, "IS_CHECKOUT", False)
    assert default_root() == user
    monkeypatch.setenv("LATENTSYNC_HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / "checkpoints"


def test_weights_of_the_user_win_over_bundled_ones(user: Path) -> None:
    assert resolve("demo-unet") == REPOSITORY / "checkpoints" / "demo" / "unet.safetensors"
    mine = user / "demo" / "unet.safetensors"
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert resolve("demo-unet") == mine
