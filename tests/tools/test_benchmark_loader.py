"""The report of the loader benchmark."""

import json

import pytest

from tests.data.corpus import SIDE, good_clip
from tools import benchmark_loader


@pytest.mark.parametrize("kind", ["unet", "syncnet"])
def test_report_has_throughput_and_unusable_clips(tmp_path, monkeypatch, capsys, kind):
    for number in range(3):
        good_clip(tmp_path / f"{number}.mp4", count=20, seed=number)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    options = {"--data": tmp_path, "--kind": kind, "--resolution": SIDE, "--frames": 4, "--batch": 3, "--batches": 4}
    argv = [str(word) for pair in options.items() for word in pair]
    monkeypatch.setattr("sys.argv", ["benchmark_loader", *argv, "--workers", "0"])
    benchmark_loader.main()
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 4
    assert [run["workers"] for run in report["runs"]] == [0]
    assert report["runs"][0]["samples_per_second"] > 0
    assert report["runs"][0]["unusable_clips"] == 1
