"""The `latentsync` command: dispatch, usage, completion, and what it imports before it has to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import latentsync
from latentsync.cli.main import COMMANDS, main
from latentsync.runtime.resources import REPOSITORY


def python(program: str, *words: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(autouse=True)
def program_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/latentsync"])


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"latentsync {latentsync.__version__}\n"


def test_usage_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: latentsync COMMAND")
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main([]) == 2
    assert main(["train", "--help"]) == 0
    assert "train unet" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [(["sing"], "unknown command 'sing'"), (["train"], "train syncnet")])
def test_unknown_commands_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in COMMANDS if not name.startswith("train")])
def test_each_command_is_called_by_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: latentsync {name} ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("profile", "syncnet", "guidance_scale", "unverified"):
        assert word in script


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["profile", "--help"], ["fetch", "--help"], ["eval", "syncnet", "--help"]]
)
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from latentsync.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'numpy', 'omegaconf', 'av', 'cv2', 'mediapipe', 'diffusers', 'tqdm')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    done = python(program, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == ([] if words[0] != "eval" else [name for name in found if name == "omegaconf"])


def test_the_module_is_named_as_it_was_called() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latentsync", "run", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m latentsync run ")
