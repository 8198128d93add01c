"""The table of speeds, with tiny networks."""

import json
from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_models
from tests.tiny_syncnet import write_tiny_syncnet
from tools.compare_speeds import main, variants


def test_rows_are_compared_with_rows_that_come_before_them():
    for steps, guidance in ((4, 1.0), (20, 1.5), (1, 1.0)):
        rows = variants(steps, guidance)
        names = [row.name for row in rows]
        assert names[:3] == ["exact", "fast", "realtime"] and len(set(names)) == len(names)
        assert all(names.index(row.baseline) <= place for place, row in enumerate(rows))
        assert all(row.request.options(steps, guidance).steps <= steps for row in rows)


def test_rows_asked_for_are_made_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = write_tiny_models(tmp_path / "models")
    config, weights = write_tiny_syncnet(tmp_path)
    out, table = tmp_path / "speeds.json", tmp_path / "speeds.md"
    judge = ["--syncnet_config_path", str(config), "--syncnet_ckpt_path", str(weights)]
    files = ["--out", str(out), "--table", str(table), "--keep", str(tmp_path / "kept")]
    rows = ["--only", "cache_interval 2", "guidance_interval 0 0.5"]
    assert main([*models.options, *judge, *files, *rows, "--seconds", "1.4"]) == 0
    made = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(made) == ["exact", "cache_interval 2", "guidance 1.5", "guidance_interval 0 0.5"]
    assert made["exact"]["calls"]["full"] == made["guidance 1.5"]["calls"]["full guided"] == 1
    # One step: the cache has nothing to save, and guidance in the first half is guidance.
    assert made["cache_interval 2"]["psnr_mouth"] == made["guidance_interval 0 0.5"]["psnr_mouth"] == 100
    assert "psnr_mouth" not in made["exact"] and 0 <= made["exact"]["sync_conf"] <= 1
    assert table.read_text() == capsys.readouterr().out
    assert "| cache_interval 2 | 1 | 1 full | exact | 100.0 dB | 1.000 |" in table.read_text()


def test_unknown_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = write_tiny_models(tmp_path / "models")
    assert main([*models.options, "--only", "warp"]) == 1
    assert "unknown warp; the rows of this model are 'exact'" in capsys.readouterr().err
