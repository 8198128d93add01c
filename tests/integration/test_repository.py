"""What must hold for the repository as a whole."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sandbox import REPOSITORY

GOLDEN_LIMIT = 15 * 1024 * 1024
DEMO_LIMIT = 40 * 1024 * 1024
OWN = {"latentsync", "scripts", "tools", "eval", "tests"}
PACKAGE_OF = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "importlinter": "import-linter",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
INSTALLED_BY_THEIR_USERS = {"insightface", "pyyaml", "scipy"}
TESTS_ACROSS_MODULES = {
    "losses/test_train_step.py",
    "metrics/test_bundled_syncnet.py",
    "pipelines/test_without_waiting.py",
    "training/test_trainer_gpu.py",
    "training/test_trainer_processes.py",
}
COMES_WITH_CUDA = {"triton"}  # a part of torch for CUDA; only the kernels' own files import it


def folder_bytes(name: str) -> int:
    return sum(path.stat().st_size for path in (REPOSITORY / name).rglob("*") if path.is_file())


@pytest.mark.parametrize(("folder", "limit"), [("tests/golden", GOLDEN_LIMIT), ("checkpoints/demo", DEMO_LIMIT)])
def test_stored_tensors_stay_small(folder: str, limit: int):
    assert folder_bytes(folder) <= limit


def requirements(*files: str) -> list[tuple[str, str]]:
    """Return (package, version) of every line; the version is "" where none is pinned."""
    lines = [line for file in files for line in (REPOSITORY / file).read_text().splitlines()]
    return [(name, version) for name, _, version in (x.partition("==") for x in lines if x and not x.startswith("#"))]


def imported_packages(path: Path, only_at_import: bool) -> Iterator[str]:
    """Yield the third-party packages a file imports, if asked only those that importing the file itself loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if only_at_import else ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for name in {module.split(".")[0] for module in modules} - OWN - sys.stdlib_module_names:
            yield PACKAGE_OF.get(name, name.replace("_", "-"))


def test_requirements_pin_every_package_to_one_version():
    pins = requirements(*(path.name for path in REPOSITORY.glob("requirements*.txt")))
    versions = dict(pins)
    assert all(versions.values())
    assert all(versions[name] == version for name, version in pins)
    assert not {"torchvision", "torchaudio", "opencv-python", "opencv-contrib-python"} & versions.keys()


@pytest.mark.parametrize("folder", ["latentsync", "scripts", "tools", "eval", "tests"])
def test_every_import_is_required_somewhere(folder: str):
    known = {name for name, _ in requirements(*(path.name for path in REPOSITORY.glob("requirements*.txt")))}
    used = {name for path in (REPOSITORY / folder).rglob("*.py") for name in imported_packages(path, False)}
    assert used <= known | INSTALLED_BY_THEIR_USERS | COMES_WITH_CUDA


def is_kernel(path: Path) -> bool:
    return path.parent.name == "kernels" and path.stem not in ("__init__", "dispatch")


@pytest.mark.parametrize("folder", ["latentsync", "scripts"])
def test_what_loads_at_import_is_installed_by_default(folder: str):
    known = {name for name, _ in requirements("requirements.txt", "requirements-nodeps.txt")}
    files = [path for path in (REPOSITORY / folder).rglob("*.py") if not is_kernel(path)]
    used = {name for path in files for name in imported_packages(path, True)}
    assert used <= known


def test_importing_the_package_loads_no_heavy_library():
    """Optional and heavy libraries load when they are used, so that --help and errors come at once."""
    program = (
        "import json, sys, pkgutil, importlib, latentsync\n"
        "for found in pkgutil.walk_packages(latentsync.__path__, 'latentsync.'):\n"
        "    'kernels.' in found.name and found.name[-8:] != 'dispatch' or importlib.import_module(found.name)\n"
        "print(json.dumps([name for name in ('mediapipe', 'insightface', 'onnxruntime') if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_folders_of_the_package_stay_small():
    folders = {path.parent for path in (REPOSITORY / "latentsync").rglob("*.py")}
    assert not {str(each): n for each in folders if (n := len([*each.glob("*.py")])) > 16}


def test_no_two_public_classes_share_a_name():
    owners: dict[str, list[str]] = {}
    for path in (REPOSITORY / "latentsync").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(str(path.relative_to(REPOSITORY)))
    assert not {name: files for name, files in owners.items() if len(files) > 1}


def test_test_files_mirror_modules():
    """tests/x/test_y.py tests latentsync/x/y.py, or the tool of that name."""
    tests = REPOSITORY / "tests"
    files = [path.relative_to(tests) for path in tests.rglob("test_*.py") if path.parts[-2] != "integration"]
    roots = (REPOSITORY / "latentsync", REPOSITORY)
    orphans = {str(path) for path in files if not any(_mirrored(root, path).exists() for root in roots)}
    assert orphans - TESTS_ACROSS_MODULES == set()


def _mirrored(root: Path, test: Path) -> Path:
    return root / test.parent / (test.stem.removeprefix("test_") + ".py")
