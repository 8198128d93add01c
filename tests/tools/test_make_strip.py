"""The command line of the film strip."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentsync.media.video_writer import VideoWriter
from tools.make_strip import main


def write_grey(path: Path, grey: int) -> str:
    with VideoWriter(path, 64, 48, Fraction(25), None) as writer:
        for _ in range(4):
            writer.write(np.full((48, 64, 3), grey, np.uint8))
    return str(path)


def test_rows_are_source_truth_and_result(tmp_path: Path):
    source, truth, result = (write_grey(tmp_path / f"{grey}.mp4", grey) for grey in (40, 120, 200))
    out = tmp_path / "strip.png"
    options = ["--source", source, "--result", result, "--out", str(out), "--columns", "2", "--width", "32"]
    assert main([*options, "--truth", truth]) == 0
    rows = np.asarray(Image.open(out)).reshape(3, 24, 64, 3).mean(axis=(1, 2, 3))
    assert rows == pytest.approx([40, 120, 200], abs=3)
    assert main(options) == 0
    assert Image.open(out).size == (64, 48)


def test_crop_outside_the_frame_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    video = write_grey(tmp_path / "video.mp4", 90)
    options = ["--source", video, "--result", video, "--out", str(tmp_path / "strip.png")]
    assert main([*options, "--crop", "50", "0", "60", "20"]) == 1
    assert "does not fit" in capsys.readouterr().err
    assert not (tmp_path / "strip.png").exists()
