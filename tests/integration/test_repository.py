"""What must hold for the repository as a whole."""

import json
import subprocess
import sys

import pytest

from tests.integration.sandbox import REPOSITORY

GOLDEN_LIMIT = 15 * 1024 * 1024
DEMO_LIMIT = 25 * 1024 * 1024


def folder_bytes(name: str) -> int:
    return sum(path.stat().st_size for path in (REPOSITORY / name).rglob("*") if path.is_file())


@pytest.mark.parametrize(("folder", "limit"), [("tests/golden", GOLDEN_LIMIT), ("checkpoints/demo", DEMO_LIMIT)])
def test_stored_tensors_stay_small(folder: str, limit: int):
    assert folder_bytes(folder) <= limit


def test_requirements_pin_every_package_once():
    names = []
    for path in REPOSITORY.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                name, separator, version = line.partition("==")
                assert separator and version, f"{path.name}: {line} is not pinned"
                names.append((name, version))
    versions = dict(names)
    assert all(versions[name] == version for name, version in names)
    assert not {"torchvision", "torchaudio", "opencv-python", "opencv-contrib-python"} & versions.keys()


def test_importing_the_package_loads_no_heavy_library():
    """Optional and heavy libraries load when they are used, so that --help and errors come at once."""
    program = (
        "import json, sys, pkgutil, importlib, latentsync\n"
        "for found in pkgutil.walk_packages(latentsync.__path__, 'latentsync.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(json.dumps([name for name in ('mediapipe', 'insightface', 'onnxruntime') if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
