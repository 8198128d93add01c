import numpy as np
import pytest

from latentsync.errors import ConfigError
from latentsync.face.tracking.selection import IdentityTracker, parse_choice
from tests.face.made_faces import made_face


def update(choice, frames, memory=25):
    tracker = IdentityTracker(choice, 640, memory)
    return [tracker.update(faces) for faces in frames]


def center_x(results):
    return [None if face is None else round(float(face.center[0])) for face, _ in results]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("largest", 300), ("leftmost", 100), ("rightmost", 520), ("center", 300), (2, 520), ("0", 100)],
)
def test_the_choice_decides_at_the_first_frame(choice, expected):
    faces = [made_face(520, 200, 60), made_face(100, 200, 70), made_face(300, 200, 90)]
    assert center_x(update(choice, [faces])) == [expected]


def test_the_person_stays_the_same_when_another_becomes_larger():
    frames = [[made_face(150, 200, 80), made_face(450, 200, 60 + 3 * step)] for step in range(30)]
    assert center_x(update("largest", frames)) == [150] * 30


def test_two_people_who_cross_paths_keep_their_identity():
    frames = [[made_face(100 + 10 * step, 150, 80), made_face(500 - 10 * step, 260, 80)] for step in range(40)]
    assert center_x(update("leftmost", frames)) == [100 + 10 * step for step in range(40)]


def test_other_person_does_not_replace_the_one_who_left():
    both = [made_face(150, 200, 90), made_face(450, 200, 80)]
    frames = [both] * 5 + [[both[1]]] * 60
    assert center_x(update("leftmost", frames))[5:] == [None] * 60


def test_person_is_reacquired_after_a_long_absence():
    both = [made_face(150, 200, 90), made_face(450, 200, 80)]
    back = [made_face(170, 210, 88), both[1]]
    results = center_x(update("leftmost", [both] * 5 + [[both[1]]] * 60 + [back] * 3))
    assert results[-3:] == [170] * 3


def test_cut_is_detected_and_the_face_selected_again():
    first = [made_face(100, 100, 60)]
    second = [made_face(500, 300, 120), made_face(300, 250, 200)]
    results = update("largest", [first] * 3 + [second] * 3)
    assert [cut for _, cut in results] == [False] * 3 + [True, False, False]
    assert center_x(results)[3:] == [300] * 3


def test_a_fast_move_is_no_cut():
    frames = [[made_face(100 + 40 * step, 200, 90)] for step in range(12)]
    results = update("largest", frames)
    assert not any(cut for _, cut in results)
    assert None not in center_x(results)


def test_position_choice_waits_until_enough_faces_are_visible():
    one, two = [made_face(100, 200, 80)], [made_face(100, 200, 80), made_face(400, 200, 80)]
    assert center_x(update(1, [one, one, two, two])) == [None, None, 400, 400]


@pytest.mark.parametrize("choice", ["biggest", "-1", -1, ""])
def test_unknown_choices_are_refused(choice):
    with pytest.raises(ConfigError, match="Unknown choice"):
        parse_choice(choice)


def test_choices_are_parsed():
    assert parse_choice("3") == 3
    assert parse_choice("center") == "center"
    assert np.isclose(made_face(10, 20, 30).size, 30)
