"""The comparison table of sampler settings, with tiny networks."""

import json
from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_models
from tests.tiny_syncnet import write_tiny_syncnet
from tools.compare_speeds import main, variants


def test_baselines_come_before_their_variants():
    for steps, guidance in ((4, 1.0), (20, 1.5), (1, 1.0)):
        rows = variants(steps, guidance)
        names = [row.name for row in rows]
        assert names[:3] == ["exact", "fast", "realtime"] and len(set(names)) == len(names)
        assert all(names.index(row.baseline) <= index for index, row in enumerate(rows))
        assert all(row.request.options(steps, guidance).steps <= steps for row in rows)


def test_requested_rows_and_their_baselines_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = write_tiny_models(tmp_path / "models")
    config, weights = write_tiny_syncnet(tmp_path)
    out, table = tmp_path / "speeds.json", tmp_path / "speeds.md"
    syncnet = ["--syncnet_config_path", str(config), "--syncnet_ckpt_path", str(weights)]
    files = ["--out", str(out), "--table", str(table), "--keep", str(tmp_path / "kept")]
    rows = ["--only", "cache_interval 2", "guidance_interval 0 0.5"]
    assert main([*models.options, *syncnet, *files, *rows, "--seconds", "1.4"]) == 0
    measured = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(measured) == ["exact", "cache_interval 2", "guidance 1.5", "guidance_interval 0 0.5"]
    assert measured["exact"]["calls"]["full"] == measured["guidance 1.5"]["calls"]["full guided"] == 1
    # With a single step, caching has no effect, and guidance in the first half covers that step.
    assert measured["cache_interval 2"]["psnr_mouth"] == measured["guidance_interval 0 0.5"]["psnr_mouth"] == 100
    assert "psnr_mouth" not in measured["exact"] and 0 <= measured["exact"]["sync_conf"] <= 1
    assert table.read_text() == capsys.readouterr().out
    assert "| cache_interval 2 | 1 | 1 full | exact | 100.0 dB | 1.000 |" in table.read_text()


def test_unknown_rows_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = write_tiny_models(tmp_path / "models")
    assert main([*models.options, "--only", "warp"]) == 1
    assert "unknown rows warp; the rows of this model are 'exact'" in capsys.readouterr().err
