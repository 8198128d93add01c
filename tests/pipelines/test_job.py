"""Jobs refuse bad input early; results tell what was done."""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest

from latentsync.errors import ConfigError, MediaError
from latentsync.face.tracking.selection import CHOICES
from latentsync.media.timeline import LoopMode
from latentsync.pipelines.job import (
    FACES,
    LOOPS,
    FrameLog,
    FrameSpan,
    LipsyncJob,
    LipsyncResult,
    ModelDefaults,
)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    video, audio = tmp_path / "in.mp4", tmp_path / "in.wav"
    video.write_bytes(b"video")
    audio.write_bytes(b"audio")
    return video, audio


def result_for(path: Path) -> LipsyncResult:
    return LipsyncResult(path, 10, Fraction(30000, 1001), 64, 48, 9, 1, [FrameSpan(3, 3, "no face")], [], {}, 2.0, 0.5)


PATHS = {"video_path": "v.mp4", "audio_path": "a.wav", "video_out_path": "o.mp4"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preview": 0}, "preview: got 0, expected a number above 0"),
        ({"preview": math.inf}, "preview: got inf"),
        ({"guidance_scale": math.nan}, "guidance_scale: got nan, expected a number from 0 to 20"),
        ({"crf": 52}, "crf: got 52, expected a whole number from 0 to 51"),
        ({"seed": -2}, "seed: got -2"),
        ({"seed": 2**63}, "seed: got"),
        ({"face": "smallest"}, "face: got 'smallest', expected one of largest"),
        ({"output_fps": "fast"}, "output_fps: got 'fast', expected source, or a number"),
        ({"output_fps": "25/0"}, "output_fps: got '25/0'"),
        ({"windows": "wide"}, "windows: got 'wide', expected one of blend, tail, published"),
        ({"loop": "forever"}, "loop: got 'forever'"),
        ({"guidance_interval": [0.7, 0.2]}, "guidance_interval: got .*, expected two numbers"),
        ({"enable_deepcache": True, "cache_interval": 2}, "cache_interval: got 2 beside enable_deepcache"),
        ({"video_path": ""}, "video_path: got '', expected a path"),
        ({"video_path": "a\0b"}, "video_path: got .*, expected a path"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LipsyncJob.from_dict({**PATHS, **options})
    with pytest.raises(ConfigError, match=message):
        LipsyncJob(**{**PATHS, **options})


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown video, sead; known: video_path, audio_path"):
        LipsyncJob.from_dict({**PATHS, "video": "v.mp4", "sead": 1})
    with pytest.raises(ConfigError, match="got no audio_path, video_out_path; expected the path"):
        LipsyncJob.from_dict({"video_path": "v.mp4", "audio_path": None})
    with pytest.raises(ConfigError, match="got list, expected a mapping"):
        LipsyncJob.from_dict([PATHS])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown sead"):
        LipsyncJob.from_dict(PATHS, defaults={"sead": 1})


def test_values_of_the_job_win_over_those_given_as_defaults() -> None:
    job = LipsyncJob.from_dict({**PATHS, "seed": 3, "crf": None}, defaults={"seed": 1, "crf": 20, "video_path": "x"})
    assert (job.seed, job.crf, job.video_path) == (3, 20, Path("v.mp4"))


def test_paths_may_be_text_or_path_objects() -> None:
    text = LipsyncJob.from_dict(PATHS)
    assert text == LipsyncJob(Path("v.mp4"), Path("a.wav"), Path("o.mp4")) and isinstance(text.video_path, Path)


def test_a_job_becomes_json_and_back() -> None:
    options = {"face": 1, "output_fps": 29.97002997002997, "guidance_interval": [0, 0.5], "preview": 2, "crf": 20.0}
    job = LipsyncJob.from_dict({**PATHS, **options})
    assert (job.face, job.guidance_interval, job.crf) == ("1", (0.0, 0.5), 20)
    assert LipsyncJob.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_what_is_left_open_follows_from_speed_and_model() -> None:
    defaults = ModelDefaults(inference_steps=12, guidance_scale=1.25, seed=9)
    plain = LipsyncJob.from_dict(PATHS).resolved(defaults)
    assert (plain.inference_steps, plain.guidance_scale, plain.seed) == (12, 1.25, 9)
    assert (plain.solver, plain.cache_interval, plain.guidance_interval) == ("ddim", 1, (0.0, 1.0))
    fast = LipsyncJob.from_dict({**PATHS, "speed": "fast", "solver": "unipc", "seed": 0})
    resolved = fast.resolved(defaults)
    assert (resolved.inference_steps, resolved.solver, resolved.seed) == (9, "unipc", 0)
    assert resolved.resolved(defaults) == resolved
    assert resolved.sampler_options(defaults) == fast.sampler_options(defaults)
    published = LipsyncJob.from_dict({**PATHS, "windows": "published", "enable_deepcache": True})
    sampler = published.sampler_options(defaults)
    assert sampler.published and sampler.cache_interval == 3


def test_choices_are_those_of_the_modules_that_own_them() -> None:
    assert get_args(LoopMode) == LOOPS and CHOICES == FACES


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
    fresh, given = (LipsyncJob.from_dict({**PATHS, "seed": seed}) for seed in (-1, 5))
    assert len({fresh.resolved(ModelDefaults()).seed for _ in range(8)}) > 1
    assert LipsyncJob.from_dict(PATHS).resolved(ModelDefaults(seed=-1)).seed != -1
    assert given.resolved(ModelDefaults()).seed == 5


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
