"""The command line of the SyncNet evaluation."""

import json
from pathlib import Path

import pytest

from latentsync.cli.eval import evaluate_syncnet as main
from tests.metrics.level_network import write_pulsing
from tests.tiny_syncnet import write_tiny_syncnet


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    config, weights = write_tiny_syncnet(tmp_path)
    for seed in range(2):
        write_pulsing(tmp_path / "val" / f"clip_{seed}.mp4", seed)
    data = ["--data_dir", str(tmp_path / "val"), "--num_pairs", "12", "--batch_size", "4"]
    return ["--config_path", str(config), "--checkpoint", str(weights), *data, "--device", "cpu"]


def test_figures_and_chart_are_written(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "new" / "accuracy.v2"
    assert main([*options, "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "new" / "accuracy.v2.json").read_text())
    assert report["pairs"]["pairs"] == 12
    assert report["offsets"]["clips"] == 2
    assert report["unusable_clips"] == {}
    assert sorted(path.name for path in out.parent.iterdir()) == ["accuracy.v2.json", "accuracy.v2.png"]


def test_offsets_may_be_left_out(options: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*options, "--num_clips", "0", "--min_shift", "8"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "offsets" not in report
    assert report["min_shift"] == 8


def test_a_missing_folder_is_reported(options: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert main([*options, "--data_dir", str(tmp_path / "nowhere")]) == 1
    assert "does not exist" in caplog.text
