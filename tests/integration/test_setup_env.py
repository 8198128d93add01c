"""setup_env.sh for real: pip and venv run, on a package index of a few tiny wheels."""

import shutil
from pathlib import Path

import pytest

from tests.integration.sandbox import Sandbox, make_sandbox, write_wheel


@pytest.fixture(scope="module")
def installed_template(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A sandbox in which `./setup_env.sh` has run once."""
    sandbox = make_sandbox(tmp_path_factory.mktemp("installed") / "a folder with spaces")
    done = sandbox.run("setup_env.sh")
    assert done.returncode == 0, done.stderr
    return sandbox


@pytest.fixture
def installed(installed_template: Sandbox, tmp_path: Path) -> Sandbox:
    """A copy of the installed sandbox that the test may change."""
    shutil.copytree(installed_template.root, tmp_path / "copy", symlinks=True)
    return Sandbox(tmp_path / "copy")


def test_first_run_installs_the_pinned_set(installed_template: Sandbox):
    assert installed_template.installed("torch") == "2.13.0"
    assert installed_template.installed("first") == "1.0"
    assert installed_template.installed("third") is None


def test_listed_packages_come_without_their_dependencies(installed_template: Sandbox):
    assert installed_template.installed("second") == "1.0"
    assert installed_template.installed("unwanted") is None


def test_second_run_touches_nothing_and_says_nothing(installed_template: Sandbox):
    before = installed_template.fingerprint()
    again = installed_template.run("setup_env.sh")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert installed_template.fingerprint() == before


def test_up_to_date_run_needs_no_pip(installed: Sandbox):
    shutil.rmtree(next((installed.root / ".venv").glob("lib/python3*/site-packages/pip")))
    assert installed.run("setup_env.sh").returncode == 0


def test_changed_requirement_is_installed(installed: Sandbox):
    write_wheel(installed.wheels, "first", "2.0")
    (installed.root / "requirements.txt").write_text("torch==2.13.0\nfirst==2.0\n")
    done = installed.run("setup_env.sh")
    assert done.returncode == 0, done.stderr
    assert installed.installed("first") == "2.0"


def test_failed_install_is_repeated(installed: Sandbox):
    (installed.root / "requirements.txt").write_text("torch==2.13.0\nfirst==3.0\n")
    failed = installed.run("setup_env.sh")
    assert failed.returncode != 0
    assert "first==3.0" in failed.stderr
    write_wheel(installed.wheels, "first", "3.0")
    assert installed.run("setup_env.sh").returncode == 0
    assert installed.installed("first") == "3.0"


def test_what_training_needs_only_on_request(installed: Sandbox):
    assert installed.run("setup_env.sh").returncode == 0 and installed.installed("fourth") is None
    done = installed.run("setup_env.sh", "--train")
    assert done.returncode == 0, done.stderr
    assert installed.installed("fourth") == "1.0" and installed.installed("third") is None
    assert installed.run("setup_env.sh", "--train").stderr == ""


def test_development_tools_only_on_request(installed: Sandbox):
    done = installed.run("setup_env.sh", "--dev")
    assert done.returncode == 0, done.stderr
    assert installed.installed("third") == "1.0"
    assert installed.run("setup_env.sh", "--dev").stderr == ""


def test_torch_comes_from_the_named_index_and_stays(installed: Sandbox):
    index = installed.root / "index"
    wheel = write_wheel(index / "torch", "torch", "2.13.0+own")
    (index / "torch" / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    done = installed.run("setup_env.sh", TORCH_INDEX_URL=index.as_uri())
    assert done.returncode == 0, done.stderr
    assert installed.installed("torch") == "2.13.0+own"
    assert installed.run("setup_env.sh").stderr == ""


def test_new_gpu_brings_another_torch(installed: Sandbox, tmp_path: Path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
    (tools / "nvidia-smi").chmod(0o755)
    path = f"{tools}:{installed.environment()['PATH']}"
    done = installed.run("setup_env.sh", PATH=path)
    assert done.returncode == 0, done.stderr
    assert "Installing" in done.stderr
    assert installed.run("setup_env.sh", PATH=path).stderr == ""
    assert installed.run("setup_env.sh").stderr == "", "a shell that does not see the GPU must not reinstall"


def test_broken_environment_is_made_anew(installed: Sandbox):
    (installed.root / ".venv" / "bin" / "python").unlink()
    (installed.root / ".venv" / "bin" / "python").symlink_to(installed.root / "gone")
    done = installed.run("setup_env.sh")
    assert done.returncode == 0, done.stderr
    assert "Making .venv" in done.stderr
    assert installed.installed("first") == "1.0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights"], "--weights needs one of"),
        (["--weights", "1.7"], "expected 1.5, 1.6 or train"),
        (["--everything"], "unknown option --everything"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(tmp_path: Path, arguments: list[str], words: str):
    sandbox = make_sandbox(tmp_path / "checkout")
    done = sandbox.run("setup_env.sh", *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert not (sandbox.root / ".venv").exists()


def test_unusable_python_is_named(tmp_path: Path):
    sandbox = make_sandbox(tmp_path / "checkout")
    done = sandbox.run("setup_env.sh", PYTHON=str(tmp_path / "no-python"))
    assert done.returncode != 0
    assert "no-python" in done.stderr


def test_weights_go_to_the_fetcher(installed: Sandbox):
    package = installed.root / "latentsync"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "checkpoints.py").write_text("import sys\nprint(sys.argv[1:])\n")
    done = installed.run("setup_env.sh", "--weights", "1.6", "--weights=train")
    assert done.stdout.strip() == "['fetch', '1.6', 'train']"
