"""Output frame rates, frame counts and the order of source frames."""

from dataclasses import replace
from fractions import Fraction
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError, MediaError
from latentsync.media.probe import probe_video
from latentsync.media.timeline import (
    TimelineReader,
    output_fps,
    output_frame_count,
    pingpong_index,
    published_loop_index,
)
from tests.media.clips import Clip, make_clip, number_of, steady


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "ten.mp4", Clip(steady(10)))


@pytest.fixture(scope="module")
def info(clip):
    return probe_video(clip)


def test_published_loop_matches_golden_order(golden):
    case = golden("loop_video")
    for frames, chunks in case.attrs["cases"]:
        expected = case.outputs[f"frames{frames}_chunks{chunks}"].tolist()
        assert [published_loop_index(i, frames) for i in range(chunks)] == expected


@given(count=st.integers(1, 40), length=st.integers(1, 200))
def test_pingpong_visits_neighbours_and_repeats_no_frame(count, length):
    order = [pingpong_index(i, count) for i in range(length)]
    assert order[: min(count, length)] == list(range(min(count, length)))
    assert all(0 <= i < count for i in order)
    if count > 1:
        assert all(abs(a - b) == 1 for a, b in zip(order, order[1:]))
        # The direction changes only at the two ends.
        turns = [b for a, b, c in zip(order, order[1:], order[2:]) if a == c]
        assert set(turns) <= {0, count - 1}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (25, 25),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (30, 30),
        (12, 12),
        (48, 24),
        (50, 25),
        (Fraction(60000, 1001), Fraction(30000, 1001)),
        (60, 30),
        (90, 30),
        (120, 30),
        (240, 30),
    ],
)
def test_source_rate_is_kept_or_divided(info, source, expected):
    assert output_fps(replace(info, fps=Fraction(source)), "source") == expected


@given(rate=st.fractions(Fraction(1), Fraction(300)))
def test_divided_rates_stay_below_the_limit_and_divide(rate):
    class Info:
        fps = rate

    result = output_fps(Info(), "source")  # type: ignore[arg-type]
    assert result <= Fraction(315, 10) and (rate / result).denominator == 1


def test_explicit_rates_are_parsed_or_refused(info):
    assert output_fps(info, "25") == 25
    assert output_fps(info, 29.97) == Fraction(30000, 1001)
    assert output_fps(info, "24000/1001") == Fraction(24000, 1001)
    assert output_fps(info, 12.5) == Fraction(25, 2)
    for bad in ("fast", "0", -5, "1/0", float("nan"), float("inf"), 1000):
        with pytest.raises(ConfigError, match="frame rate"):
            output_fps(info, bad)


def test_frame_count_follows_the_audio_duration():
    assert output_frame_count(Fraction(48, 5), Fraction(25)) == 240
    assert output_frame_count(9.61, Fraction(25)) == 240
    assert output_frame_count(Fraction(10), Fraction(30000, 1001)) == 300
    assert output_frame_count(0.001, Fraction(25)) == 1


def source_indices(source):
    frames = list(source)
    assert [f.output_index for f in frames] == list(range(len(source)))
    assert [number_of(f.pixels) for f in frames] == [f.source_index for f in frames]
    return [f.source_index for f in frames]


@pytest.mark.parametrize("wanted", [1, 7, 10, 11, 18, 19, 20, 37, 64])
def test_pingpong_reader_yields_the_pingpong_order(clip, wanted):
    assert source_indices(TimelineReader(clip, Fraction(25), wanted)) == [pingpong_index(i, 10) for i in range(wanted)]


def test_pingpong_of_one_and_two_frames(tmp_path):
    for count in (1, 2):
        path = make_clip(tmp_path / f"{count}.mp4", Clip(steady(count)))
        assert source_indices(TimelineReader(path, Fraction(25), 5)) == [pingpong_index(i, count) for i in range(5)]


def test_hold_repeats_independent_copies_of_the_last_frame(clip):
    frames = list(TimelineReader(clip, Fraction(25), 13, loop="hold"))
    assert [f.source_index for f in frames] == [*range(10), 9, 9, 9]
    frames[10].pixels[:] = 0
    assert np.array_equal(frames[9].pixels, frames[11].pixels)


def test_loop_error_is_raised_before_decoding(clip):
    assert source_indices(TimelineReader(clip, Fraction(25), 10, loop="error")) == list(range(10))
    with pytest.raises(MediaError, match=r"0\.40 s.*0\.48 s"):
        TimelineReader(clip, Fraction(25), 12, loop="error")


def test_loop_error_is_raised_when_a_truncated_file_ends(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", Clip(steady(100), options={"crf": "1", "g": "10"}))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = TimelineReader(cut, Fraction(25), 100, loop="error")
    with pytest.raises(MediaError, match="longer video"):
        list(source)


def test_bad_arguments_are_refused(clip):
    with pytest.raises(ConfigError, match="loop mode"):
        TimelineReader(clip, Fraction(25), 10, loop="bounce")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        TimelineReader(clip, Fraction(25), 0)


def test_pingpong_at_another_rate_counts_output_frames(clip):
    order = [f.source_index for f in TimelineReader(clip, Fraction(50), 45)]
    assert order == [pingpong_index(i, 20) for i in range(45)]
    shown = [number_of(f.pixels) for f in TimelineReader(clip, Fraction(50), 45)]
    assert [k for k, _ in groupby(shown)][:12] == [*range(10), 8, 7]
