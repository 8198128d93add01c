"""Window plans: every frame is made once, joins are smooth, and the published cut is reproduced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.pipelines.windows import Window, WindowMode, plan_windows

MODES: tuple[WindowMode, ...] = ("blend", "tail", "published")


@given(num_frames=st.integers(1, 400), mode=st.sampled_from(MODES), overlap=st.integers(0, 7))
def test_every_frame_is_new_exactly_once(num_frames: int, mode: WindowMode, overlap: int) -> None:
    made = [
        index
        for window in plan_windows(num_frames, 16, mode, overlap)
        for index in dict.fromkeys(window.indices[window.new_start :])
    ]
    assert made == list(range(num_frames))


@given(num_frames=st.integers(1, 400), mode=st.sampled_from(("blend", "tail")))
def test_default_windows_always_have_full_length(num_frames: int, mode: WindowMode) -> None:
    assert {len(window.indices) for window in plan_windows(num_frames, 16, mode)} == {16}


@given(num_frames=st.integers(1, 60), length=st.integers(1, 24), mode=st.sampled_from(MODES))
def test_every_window_length_has_a_default_overlap(num_frames: int, length: int, mode: WindowMode) -> None:
    made = [i for w in plan_windows(num_frames, length, mode) for i in dict.fromkeys(w.indices[w.new_start :])]
    assert made == list(range(num_frames))


def test_published_plan_ends_with_a_short_window() -> None:
    assert [len(w.indices) for w in plan_windows(37, 16, "published")] == [16, 16, 5]


def test_blend_fades_linearly_across_the_overlap() -> None:
    first, second = list(plan_windows(28, 16, "blend", overlap=4))
    assert (second.start, second.new_start, second.blend) == (12, 4, 4)
    assert [second.fade_in(slot) for slot in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert first.fade_in(0) == 1.0


def test_reaching_back_keeps_frames_outside_the_overlap() -> None:
    last = list(plan_windows(30, 16, "blend", overlap=4))[-1]
    assert (last.start, last.stop, last.new_start, last.blend) == (14, 30, 14, 4)
    assert last.fade_in(9) == 0.0 and 0 < last.fade_in(10) < 1


def test_short_video_plays_to_and_fro() -> None:
    (window,) = plan_windows(3, 8, "blend", overlap=2)
    assert window == Window((0, 1, 2, 1, 0, 1, 2, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 16, "blend", 4), "at least 1"), ((5, 16, "other", 4), "unknown mode"), ((5, 16, "blend", 8), "overlap 8")],
)
def test_bad_plans_are_refused(arguments: tuple[int, int, WindowMode, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(plan_windows(*arguments))
