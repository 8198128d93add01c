"""inference.sh: which arguments reach the program, and where the output goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sandbox import REPOSITORY, Sandbox, make_sandbox

ECHO = '#!/bin/sh\nprintf \'%s\\n\' "$PWD" "$@"\n'
ECHO_AND_WAIT = '#!/bin/sh\nprintf "%s\\n" "$@"\nread -r _\n'


def make_echo(sandbox: Sandbox, script: str = ECHO) -> str:
    """Write a stand-in for Python that prints the folder and the arguments it is given."""
    program = sandbox.root / "echo-python"
    program.write_text(script)
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = make_sandbox(tmp_path / "it's a $(checkout)")
    (made.root / ".venv").mkdir()
    return made


def called_with(sandbox: Sandbox, *arguments: str, cwd: Path | None = None) -> tuple[str, dict[str, str], list[str]]:
    """Return the working folder, the options (last one wins) and the raw arguments that Python would get."""
    done = sandbox.run("inference.sh", *arguments, cwd=cwd, LATENTSYNC_PYTHON=make_echo(sandbox))
    assert done.returncode == 0, done.stderr
    folder, *words = done.stdout.splitlines()
    assert words[:2] == ["-m", "scripts.inference"]
    options = dict(zip(words[2:-1], words[3:], strict=True))
    return folder, options, words[2:]


def test_bundled_clip_by_default(sandbox: Sandbox):
    _, options, _ = called_with(sandbox)
    assert options["--video_path"] == str(sandbox.root / "assets" / "demo_video.mp4")
    assert options["--audio_path"] == str(sandbox.root / "assets" / "demo_speech.wav")
    assert options["--video_out_path"] == str(sandbox.root / "outputs" / "demo.mp4")


def test_existing_outputs_are_left_alone(sandbox: Sandbox):
    (sandbox.root / "outputs").mkdir()
    for name in ("demo.mp4", "demo_2.json"):
        (sandbox.root / "outputs" / name).touch()
    _, options, _ = called_with(sandbox)
    assert Path(options["--video_out_path"]).name == "demo_3.mp4"


def test_two_runs_at_once_get_two_names(sandbox: Sandbox):
    waiting = make_echo(sandbox, ECHO_AND_WAIT)
    first = subprocess.Popen(
        [str(sandbox.root / "inference.sh")],
        env=sandbox.environment(LATENTSYNC_PYTHON=waiting),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout is not None
        words = [first.stdout.readline().strip() for _ in range(8)]
        assert words[-1].endswith("/demo.mp4")
        _, options, _ = called_with(sandbox)
        assert Path(options["--video_out_path"]).name == "demo_2.mp4"
    finally:
        first.communicate("\n", timeout=30)
    _, options, _ = called_with(sandbox)
    assert Path(options["--video_out_path"]).name == "demo.mp4"


def test_own_files_win_and_name_the_output(sandbox: Sandbox):
    _, options, _ = called_with(sandbox, "--video_path", "my clips/Zoë $(id).mov", "--audio_path=a.wav", "--seed", "7")
    assert options["--video_path"] == "my clips/Zoë $(id).mov"
    assert Path(options["--video_out_path"]).name == "Zoë $(id)_lipsync.mp4"
    assert options["--seed"] == "7"


def test_only_own_speech_keeps_the_bundled_clip(sandbox: Sandbox):
    _, options, raw = called_with(sandbox, "--audio_path", "words.wav")
    assert options["--video_path"].endswith("demo_video.mp4")
    assert raw.count("--audio_path") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--tasks", "tasks.yaml"], ["--tasks=tasks.yaml"]])
def test_nothing_is_added_to_help_and_batches(sandbox: Sandbox, arguments: list[str]):
    _, _, raw = called_with(sandbox, *arguments)
    assert raw == arguments
    assert not (sandbox.root / "outputs").exists()


def test_relative_paths_stay_relative_to_the_user(sandbox: Sandbox, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder, options, _ = called_with(sandbox, "--video_out_path", "out.mp4", cwd=elsewhere)
    assert Path(folder).resolve() == elsewhere.resolve()
    assert options["--video_out_path"] == "out.mp4"


def test_exit_status_is_the_programs_own(sandbox: Sandbox):
    done = sandbox.run("inference.sh", LATENTSYNC_PYTHON=make_echo(sandbox, "#!/bin/sh\nexit 3\n"))
    assert done.returncode == 3


@pytest.mark.parametrize(("script", "own"), [("inference.sh", "--tasks"), ("inference_profiler.sh", "--warmup")])
def test_help_of_the_real_program(tmp_path: Path, script: str, own: str):
    done = subprocess.run(
        [str(REPOSITORY / script), "--help"],
        cwd=tmp_path,
        env=os.environ | {"LATENTSYNC_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for option in ("--video_path", "--audio_path", "--video_out_path", "--preset", "--guidance_scale", own):
        assert option in done.stdout
