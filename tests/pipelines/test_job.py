"""Jobs refuse bad input early; results tell what was done."""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from latentsync.diffusion.denoise import SamplerOptions
from latentsync.errors import ConfigError, MediaError
from latentsync.pipelines.job import FrameLog, FrameSpan, LipsyncJob, LipsyncResult


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    video, audio = tmp_path / "in.mp4", tmp_path / "in.wav"
    video.write_bytes(b"video")
    audio.write_bytes(b"audio")
    return video, audio


def result_for(path: Path) -> LipsyncResult:
    return LipsyncResult(path, 10, Fraction(30000, 1001), 64, 48, 9, 1, [FrameSpan(3, 3, "no face")], [], {}, 2.0, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preview_seconds": 0}, "Preview"),
        ({"preview_seconds": math.inf}, "Preview"),
        ({"crf": 52}, "crf"),
        ({"seed": -2}, "Seed"),
        ({"seed": 2**64}, "Seed"),
        ({"face": "smallest"}, "choice of face"),
        ({"output_fps": "fast"}, "frame rate 'fast'"),
        ({"windows": "published"}, "published=False"),
        ({"sampler": SamplerOptions(published=True)}, "'blend'"),
        ({"windows": "wide"}, "Windows"),
        ({"loop": "forever"}, "Loop"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LipsyncJob(Path("a"), Path("b"), Path("c"), **options)


def test_output_that_is_an_input_is_refused_even_with_overwrite(inputs: tuple[Path, Path]) -> None:
    video, audio = inputs
    link = video.with_name("link.mp4")
    link.symlink_to(video)
    with pytest.raises(MediaError, match="one of the inputs"):
        LipsyncJob(video, audio, link, overwrite=True).check_paths()


def test_report_that_would_replace_an_input_is_refused(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    video = inputs[0].rename(tmp_path / "in.json")
    with pytest.raises(MediaError, match="replace an input"):
        LipsyncJob(video, inputs[1], tmp_path / "in.mp4", overwrite=True).check_paths()


def test_existing_video_or_report_is_kept_unless_overwriting(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    for existing in ("out.mp4", "out.json"):
        (tmp_path / existing).write_text("mine")
        with pytest.raises(MediaError, match="exists already"):
            LipsyncJob(*inputs, tmp_path / "out.mp4").check_paths()
        LipsyncJob(*inputs, tmp_path / "out.mp4", overwrite=True).check_paths()
        (tmp_path / existing).unlink()


def test_missing_inputs_are_named(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="gone.mp4"):
        LipsyncJob(tmp_path / "gone.mp4", inputs[1], tmp_path / "o.mp4").check_paths()
    with pytest.raises(MediaError, match="Audio file"):
        LipsyncJob(inputs[0], tmp_path, tmp_path / "o.mp4").check_paths()


def test_fresh_seeds_differ_and_given_ones_stay() -> None:
    job = LipsyncJob(Path("a"), Path("b"), Path("c"), seed=-1)
    assert len({job.resolve_seed() for _ in range(8)}) > 1
    assert LipsyncJob(Path("a"), Path("b"), Path("c"), seed=5).resolve_seed() == 5


def test_frame_log_joins_neighbours_with_one_reason() -> None:
    log = FrameLog()
    for index, reason in enumerate([None, "no face", "no face", "pose", "no face", None]):
        log.add(index, generated=reason is None, reason=reason)
    assert log.spans == [FrameSpan(1, 2, "no face"), FrameSpan(3, 3, "pose"), FrameSpan(4, 4, "no face")]
    assert log.counts == {"generated": 2, "original": 4}


def test_report_is_json_with_exact_rate(tmp_path: Path) -> None:
    result_for(tmp_path / "out.mp4").write(tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["fps"] == "30000/1001"
    assert report["spans"] == [{"first": 3, "last": 3, "reason": "no face"}]
    assert report["frames_per_second"] == 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_report_takes_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    result_for(tmp_path / name).write(tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert report["video_out_path"] == str(tmp_path / name)


def test_report_in_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="Cannot write into"):
        result_for(tmp_path / "out.mp4").write(tmp_path / "nowhere" / "out.json")
