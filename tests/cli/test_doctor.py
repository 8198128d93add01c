"""The command line of the diagnostics."""

import json

import pytest

from latentsync.cli.doctor import run_doctor


def test_findings_are_printed_as_text_and_as_json(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    code = run_doctor(["--json", "--checkpoints", str(tmp_path), "--output", str(tmp_path)])
    assert code == 1  # no weights there
    assert json.loads(capsys.readouterr().out)["can_run"] is False
    assert run_doctor(["--checkpoints", str(tmp_path)]) == 1
    assert "not found: unet-1.5" in capsys.readouterr().out
