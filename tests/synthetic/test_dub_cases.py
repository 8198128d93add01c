"""Evaluation cases: their content, reproducibility and layout on disk."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.errors import ConfigError, MediaError
from latentsync.media.audio.reader import read_audio
from latentsync.media.video_reader import VideoReader
from latentsync.synthetic.demo_scene import demo_video
from latentsync.synthetic.dub_cases import DubCase, bundled_case, held_out_case, write_case
from latentsync.synthetic.head.renderer import HeadRenderer

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def renderer() -> HeadRenderer:
    return HeadRenderer("cpu")


def test_dub_is_the_same_scene_with_other_words():
    case = held_out_case(3, 1, seconds=0.6)
    again = held_out_case(3, 1, seconds=0.6)
    assert case.source.num_frames == case.dubbed.num_frames == 15
    assert case.source.identity == case.dubbed.identity == again.source.identity
    assert np.array_equal(case.source.motion, case.dubbed.motion)
    assert case.source_utterance.text != case.driving_utterance.text == again.driving_utterance.text
    assert held_out_case(3, 2, seconds=0.6).source.identity != case.source.identity


def test_first_bundled_case_uses_the_bundled_speech_and_others_held_out_words():
    first, second = (bundled_case(ASSETS / "demo_video.mp4", 3, number) for number in (0, 1))
    assert first.dubbed.num_frames == 110
    assert second.dubbed.num_frames == 120
    assert "Good morning" in first.driving_utterance.text
    assert first.driving_utterance.text != second.driving_utterance.text
    with pytest.raises(MediaError, match="is missing"):
        bundled_case(ASSETS / "nothing.mp4", 3, 0)


def test_bundled_clip_matches_its_scene(renderer: HeadRenderer):
    state, _ = demo_video()
    bundled = next(iter(VideoReader(ASSETS / "demo_video.mp4"))).pixels
    rendered = renderer.render(state.frames(0, 1), bundled.shape[0])[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(rendered - bundled).mean() < 4


def test_written_case_has_clips_audio_and_ground_truth(tmp_path: Path, renderer: HeadRenderer):
    case = held_out_case(3, 1, seconds=0.4, size=96)
    folder = write_case(case, tmp_path, renderer)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("source.json", "source.mp4", "truth.json", "truth.mp4", "truth.wav")
    ]
    frames = {name: [frame.pixels for frame in VideoReader(folder / f"{name}.mp4")] for name in ("source", "truth")}
    assert len(frames["source"]) == len(frames["truth"]) == 10
    assert frames["source"][0].shape == (96, 96, 3)
    assert len(read_audio(folder / "truth.wav")) == 6400
    truth = json.loads((folder / "truth.json").read_text())
    assert np.array(truth["control_points"]).shape == (10, 3, 2)
    assert truth["text"] == case.driving_utterance.text
    assert [path.name for path in tmp_path.iterdir()] == [case.name]


def test_existing_case_is_kept_and_a_different_one_is_rejected(tmp_path: Path, renderer: HeadRenderer):
    case = held_out_case(3, 1, seconds=0.4, size=96)
    folder = write_case(case, tmp_path, renderer)
    before = (folder / "truth.mp4").stat().st_mtime_ns
    assert write_case(case, tmp_path, renderer) == folder
    assert (folder / "truth.mp4").stat().st_mtime_ns == before
    shorter = replace(case, dubbed=case.dubbed.frames(0, 6))
    with pytest.raises(ConfigError, match="10 frames"):
        write_case(shorter, tmp_path, renderer)


def test_source_of_a_bundled_case_is_the_bundled_video_itself(tmp_path: Path, renderer: HeadRenderer):
    whole = bundled_case(ASSETS / "demo_video.mp4", 3, 0)
    case = DubCase(
        "b", whole.source, whole.source_utterance, whole.dubbed.frames(0, 3), whole.driving_utterance, 768, whole.video
    )
    folder = write_case(case, tmp_path, renderer)
    assert (folder / "source.mp4").read_bytes() == (ASSETS / "demo_video.mp4").read_bytes()
    assert len(json.loads((folder / "source.json").read_text())["control_points"]) == 120
    assert VideoReader(folder / "truth.mp4").fps == Fraction(25)
