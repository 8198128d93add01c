"""Recommended commands: those of a checkout and those of an installed wheel."""

import sys
from pathlib import Path

import pytest

from latentsync.runtime import advice
from latentsync.runtime.resources import REPOSITORY


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if the package ran from a wheel, in an environment that has the console script."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("python", "latentsync"):
        (binaries / name).touch(mode=0o755)
    monkeypatch.setattr(advice, "IS_CHECKOUT", False)
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    monkeypatch.chdir("/")
    return binaries


def test_a_wheel_is_served_by_its_command(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(installed))
    assert advice.fetch_command("1.6") == "latentsync fetch 1.6"
    assert advice.fetch_command("1.6", "/my data") == "latentsync fetch 1.6 --checkpoints '/my data'"
    assert advice.install_command("train") == "python -m pip install 'latentsync[train]'"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert advice.fetch_command("vgg16").endswith("/bin/latentsync fetch vgg16")


def test_a_checkout_is_served_by_its_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "_uses_setup_script", lambda: True)
    monkeypatch.chdir(REPOSITORY)
    assert advice.fetch_command("1.6") == "./setup_env.sh --weights 1.6"
    assert advice.install_command() == "./setup_env.sh"
    assert advice.install_command("train") == "./setup_env.sh --train"
    monkeypatch.chdir("/")
    assert advice.install_command() == str(REPOSITORY / "setup_env.sh")


def test_an_environment_of_the_users_own_gets_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "_uses_setup_script", lambda: False)
    monkeypatch.chdir(REPOSITORY)
    assert advice.install_command("train").endswith("-m pip install -c requirements.txt -r requirements-train.txt")
    assert advice.fetch_command("1.6").endswith("fetch 1.6")
