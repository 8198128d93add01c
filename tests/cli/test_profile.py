"""The profiler from its command line, on tiny networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from latentsync.cli.inference import inference_parser
from latentsync.cli.profile import profiler_parser, run_profiler
from tests.tiny_models import TinyModels, write_tiny_models

FOUND = {"operators.txt", "profile.png", "summary.json", "trace.json.gz"}
MADE = FOUND | {"video.mp4", "video.json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def profile(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "deep" / "profile"
    assert run_profiler([*models.options, "--preview", "0.64", "--out", str(folder)]) == 0
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_options_are_those_of_inference_and_two_more() -> None:
    def flags(parser: object) -> set[str]:
        return {flag for action in parser._actions for flag in action.option_strings}  # type: ignore[attr-defined]

    assert flags(profiler_parser()) - flags(inference_parser()) == {"--out", "--warmup"}


def test_everything_that_is_promised_lies_in_the_folder(profile: Path) -> None:
    assert names(profile) == MADE
    summary = json.loads((profile / "summary.json").read_text())
    assert summary["frames"] == 16 and len(summary["warm_up_seconds"]) == 1
    assert summary["frames_per_second"] == pytest.approx(16 / summary["wall_seconds"], rel=0.01)
    assert 0 < summary["first_frame_seconds"] < summary["wall_seconds"]
    assert summary["machine"]["device"] == "cpu" and summary["gpu_busy_fraction"] is None
    assert summary["settings"]["preview"] == 0.64 and summary["peak_mib"]["resident"] > 100


def test_stages_of_all_threads_are_there_as_in_the_runs_own_report(profile: Path) -> None:
    stages = json.loads((profile / "summary.json").read_text())["stages"]
    reported = json.loads((profile / "video.json").read_text())["stage_seconds"]
    assert stages.keys() == reported.keys() >= {"read", "detect", "encode", "denoise", "decode", "restore", "write"}
    for name, seconds in reported.items():
        assert stages[name]["report_seconds"] == seconds
        # The report's clock has to wait for its thread's turn after the range has ended.
        assert stages[name]["host_seconds"] <= seconds + 0.01
    assert stages["write"]["ranges"] == 16


def test_the_operators_are_named(profile: Path) -> None:
    text = (profile / "operators.txt").read_text()
    assert "aten::" in text and "stage:" not in text and len(text.splitlines()) == 2 + 15


def test_nothing_is_replaced_unasked(
    models: TinyModels, profile: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path.name: path.read_bytes() for path in profile.iterdir()}
    assert run_profiler([*models.options, "--out", str(profile)]) == 1
    assert "summary.json" in caplog.text and "--overwrite" in caplog.text
    assert {path.name: path.read_bytes() for path in profile.iterdir()} == before
    (tmp_path / "video.mp4").write_bytes(b"mine")
    assert run_profiler([*models.options, "--out", str(tmp_path)]) == 1
    assert names(tmp_path) == {"video.mp4"}


def test_without_matplotlib_all_else_is_written_and_may_replace(
    models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "summary.json").write_text("old")
    out = tmp_path / "mine.mp4"
    options = ["--preview", "0.2", "--warmup", "0", "--overwrite", "--out", str(tmp_path), "--video_out_path", str(out)]
    assert run_profiler([*models.options, *options]) == 0
    assert "pip install matplotlib" in caplog.text
    assert names(tmp_path) == FOUND - {"profile.png"} | {"mine.mp4", "mine.json"}
    assert json.loads((tmp_path / "summary.json").read_text())["warm_up_seconds"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--warmup", "-1"], "0 or more"),
        (["--tasks", "tasks.yaml"], "one job is measured"),
        (["--video_path", "gone.mp4"], "gone.mp4 does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    models: TinyModels, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str], message: str
) -> None:
    assert run_profiler([*models.options, "--out", str(tmp_path), *options]) == 1
    assert message in caplog.text and list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_told(
    models: TinyModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert run_profiler([*models.options, "--out", str(tmp_path / "file")]) == 1
    assert "cannot be made a folder" in caplog.text
