"""End-to-end speed measurement and comparison with an earlier report, with tiny networks."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from latentsync.cli.bench import Limits, compare
from latentsync.cli.bench import run_benchmark as main
from latentsync.errors import ConfigError
from tests.tiny_models import TinyModels, write_tiny_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def base(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base") / "base.json"
    assert main([*models.options, "--preview", "0.64", "--repeats", "2", "--out", str(out)]) == 0
    return out


def changed(base: Path, folder: Path, **values: object) -> Path:
    """Write a copy of a report with changed values, beside a copy of its video."""
    report = json.loads(base.read_text()) | values
    path = folder / "changed.json"
    path.write_text(json.dumps(report))
    path.with_suffix(".mp4").write_bytes(base.with_suffix(".mp4").read_bytes())
    return path


def test_report_describes_the_timed_runs(base: Path) -> None:
    report = json.loads(base.read_text())
    assert report["frames"] == 16 and len(report["all_frames_per_second"]) == 2
    low, high = sorted(report["all_frames_per_second"])
    assert low <= report["frames_per_second"] <= high
    assert report["frames_per_second"] == pytest.approx(16 / report["seconds"], rel=1e-3, abs=1e-3)
    assert {"read", "detect", "encode", "denoise", "decode", "write"} <= report["stages"].keys()
    for stage in report["stages"].values():
        assert stage["fraction"] == pytest.approx(stage["seconds"] / report["seconds"], abs=1e-3)
    assert 0 < report["first_frame_seconds"] < report["seconds"]
    assert report["peak_mib"]["resident"] > 100 and report["machine"]["gpu"] is None
    assert base.with_suffix(".mp4").is_file()


def test_slower_run_than_the_earlier_report_fails(
    models: TinyModels, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = [*models.options, "--preview", "0.64", "--repeats", "1", "--tolerance", "0.9"]
    assert main([*options, "--compare", str(changed(base, tmp_path, frames_per_second=1e-3, stages={}))]) == 0
    assert main([*options, "--compare", str(changed(base, tmp_path, frames_per_second=1e6, stages={}))]) == 1
    error = caplog.text
    assert "end to end" in error and "1e+06 before" in error and "differs" not in error


def test_regressions_are_listed(base: Path, tmp_path: Path, models: TinyModels) -> None:
    report, video = json.loads(base.read_text()), base.with_suffix(".mp4")
    assert compare(report, report, video, video, Limits()) == []
    slower = {**report, "frames_per_second": report["frames_per_second"] * 0.89}
    slower["stages"] = {name: {**each, "frames_per_second": 1e-6} for name, each in report["stages"].items()}
    lines = compare(slower, report, video, video, Limits())
    assert any(line.startswith("end to end") for line in lines) and any("decode" in line for line in lines)
    assert compare({**slower, "stages": {}}, report, video, video, Limits(tolerance=0.12)) == []
    other = tmp_path / "other.json"
    assert main([*models.options, "--preview", "0.64", "--repeats", "1", "--seed", "5", "--out", str(other)]) == 0
    (line,) = compare(report, report, other.with_suffix(".mp4"), video, Limits())
    assert "the video differs" in line and "expected at least 40" in line
    with pytest.raises(ConfigError, match="different run: frames 16, now 17"):
        compare({**report, "frames": 17}, report, video, video, Limits())


def test_report_is_compared_before_it_is_overwritten(
    models: TinyModels, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = str(changed(base, tmp_path, stages={}, frames_per_second=1e-3))
    options = [*models.options, "--preview", "0.64", "--repeats", "1", "--seed", "5"]
    assert main([*options, "--compare", same, "--out", same, "--overwrite"]) == 1
    assert "the video differs" in caplog.text


@pytest.mark.parametrize(
    ("option", "message"),
    [("--tasks", "one job is measured"), ("--video_out_path", "the video is saved beside --out")],
)
def test_unsupported_inference_options_are_rejected(
    models: TinyModels, caplog: pytest.LogCaptureFixture, option: str, message: str
) -> None:
    assert main([*models.options, option, "mine"]) == 1
    assert f"{option} mine: {message}" in caplog.text


def test_failed_save_leaves_no_files(
    models: TinyModels, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    options = ["--preview", "0.2", "--repeats", "1", "--out", str(tmp_path / "report.json")]
    assert main([*models.options, *options]) == 1
    assert "No space left on device" in caplog.text and list(tmp_path.iterdir()) == []


def test_existing_reports_are_kept_and_invalid_ones_are_rejected(
    models: TinyModels, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = base.read_bytes()
    assert main([*models.options, "--out", str(base)]) == 1
    assert "exists already" in caplog.text and base.read_bytes() == before
    broken = tmp_path / "broken.json"
    broken.write_text("[]")
    assert main([*models.options, "--compare", str(broken)]) == 1
    assert "not a report written by --out" in caplog.text
    lonely = tmp_path / "lonely.json"
    lonely.write_bytes(before)
    assert main([*models.options, "--compare", str(lonely)]) == 1
    assert "lonely.mp4 is missing" in caplog.text
