"""The wheel: what it contains, and that it finds it from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.sandbox import REPOSITORY

WANTED = {
    "latentsync/py.typed",
    "latentsync/_data/assets/demo_speech.wav",
    "latentsync/_data/assets/demo_video.mp4",
    "latentsync/_data/assets/portraits/hopper.jpg",
    "latentsync/_data/checkpoints/demo/unet.safetensors",
    "latentsync/_data/checkpoints/demo/vae/config.json",
    "latentsync/_data/configs/syncnet/demo.yaml",
    "latentsync/_data/configs/unet/stage2_512.yaml",
}
PROGRAM = """
from pathlib import Path
from latentsync.build.presets import preset_files
from latentsync.config.load import load_config
from latentsync.runtime.advice import fetch_command
from latentsync.runtime.resources import IS_CHECKOUT, REPOSITORY
files = preset_files("demo")
config = load_config(files.config_path)
assert not IS_CHECKOUT and config.data.resolution == 256
for path in (files.unet, files.vae, files.audio_encoder, REPOSITORY / "assets" / "demo_video.mp4"):
    assert path.exists() and path.is_relative_to(REPOSITORY), path
assert "setup_env" not in fetch_command("1.6")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("latentsync", "configs", "assets", "checkpoints/demo"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy2(REPOSITORY / name, source / name)
    build = (
        "import os, sys\n"
        "from setuptools.build_meta import build_wheel\n"
        "sys.argv = sys.argv[:1]\n"
        "build_wheel(os.environ['TARGET'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        env={**os.environ, "TARGET": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_code_and_data_are_inside(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
    assert names >= WANTED
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "latentsync").rglob("*.py")}
    configs = {f"latentsync/_data/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "configs").rglob("*.yaml")}
    assert names >= modules | configs
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"latentsync"}
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert needs and not any("==" in line or "opencv" in line or "openai-whisper" in line for line in needs)
    assert "Provides-Extra: train" in metadata


def test_resources_are_found_from_an_empty_folder(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")  # noqa: S202 - built above
    (tmp_path / "empty").mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "LATENTSYNC_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "empty",
        env={**kept, "PYTHONPATH": str(tmp_path / "site"), "XDG_DATA_HOME": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "empty").iterdir()) == []
