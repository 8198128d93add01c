import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.face.geometry.affine import apply_affine, face_template, fit_affine
from latentsync.face.tracking.tracker import NO_FACE, OUTSIDE, TOO_SMALL, TURNED_AWAY, FaceTracker, TrackerOptions
from tests.face.made_faces import made_face

SIZE = (640, 480)


def track(frames, options=None, fps=25.0):
    tracker = FaceTracker("largest", SIZE, fps, 256, options)
    tracked, waiting = [], 0
    for index, faces in enumerate(frames):
        tracked += tracker.push(index, faces)
        waiting = max(waiting, index + 1 - len(tracked))
    assert waiting <= tracker.max_lag
    tracked += tracker.flush()
    assert [face.index for face in tracked] == list(range(len(frames)))
    return tracked


def still(count, x=300.0, size=150.0, **more):
    return [[made_face(x, 220, size, **more)]] * count


def weights(tracked):
    return [round(face.weight, 3) for face in tracked]


def test_still_face_keeps_its_measured_matrix():
    tracked = track(still(30))
    expected = fit_affine(still(1)[0][0].control_points[None], face_template(256))[0]
    for face in tracked:
        assert face.weight == 1
        assert face.reason is None
        np.testing.assert_allclose(face.matrix, expected, atol=1e-2)


def test_jitter_of_a_still_face_is_removed():
    rng = np.random.default_rng(3)
    frames = [[made_face(300, 220, 300, noise=rng.normal(0, 0.4, (3, 2)))] for _ in range(120)]
    raw = fit_affine(np.stack([faces[0].control_points for faces in frames]), face_template(256))
    smooth = np.stack([face.matrix for face in track(frames)])
    mouth = np.array([[300.0, 300.0]])
    moved_raw, moved_smooth = apply_affine(raw, mouth)[:, 0], apply_affine(smooth, mouth)[:, 0]
    assert np.diff(moved_smooth, axis=0).std() < 0.15 * np.diff(moved_raw, axis=0).std()


@pytest.mark.parametrize("missing", [1, 6, 12])
def test_short_gaps_are_interpolated_linearly(missing):
    frames = [[made_face(200 + 2 * step, 220, 150)] for step in range(60)]
    whole = track(frames)
    for step in range(30, 30 + missing):
        frames[step] = []
    bridged = track(frames)
    assert weights(bridged) == [1.0] * 60
    for face, expected in zip(bridged, whole):
        np.testing.assert_allclose(face.matrix, expected.matrix, atol=0.05)


def test_long_gaps_stay_unchanged_and_fade_on_both_sides():
    frames = still(30) + [[]] * 20 + still(30)
    tracked = track(frames)
    assert weights(tracked)[24:31] == [1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0]
    assert weights(tracked)[49:56] == [0.0, 0.167, 0.333, 0.5, 0.667, 0.833, 1.0]
    assert {face.reason for face in tracked[30:50]} == {NO_FACE}
    assert all(face.matrix is None for face in tracked[30:50])
    assert all(face.matrix is not None for face in tracked[:30] + tracked[50:])


def test_a_cut_is_not_smoothed_across():
    before, after = made_face(200, 220, 150), made_face(260, 250, 170)
    tracked = track([[before]] * 30 + [[after]] * 30)
    for face in tracked:
        expected = before if face.index < 30 else after
        matrix = fit_affine(expected.control_points[None], face_template(256))[0]
        np.testing.assert_allclose(face.matrix, matrix, atol=1e-2)
        assert face.weight == 1


def test_gap_between_faces_at_different_positions_is_not_bridged():
    tracked = track(still(30, x=150) + [[]] * 5 + still(30, x=500))
    assert all(face.weight == 0 for face in tracked[30:35])
    assert np.allclose(tracked[29].matrix, tracked[20].matrix, atol=1e-2)


def test_head_turned_away_is_unusable_until_it_is_well_back():
    yaws = [0.0] * 20 + [0.95] * 20 + [0.85] * 5 + [0.0] * 20
    tracked = track([[made_face(300, 220, 150, yaw=yaw)] for yaw in yaws])
    assert [face.index for face in tracked if face.reason == TURNED_AWAY] == list(range(20, 45))


def test_unusable_faces_have_a_reason_from_the_first_frame():
    assert {face.reason for face in track(still(5, size=20.0))} == {TOO_SMALL}
    assert {face.reason for face in track(still(5, x=637.0))} == {OUTSIDE}
    assert {face.reason for face in track(still(5, yaw=0.95))} == {TURNED_AWAY}


@given(st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=70), st.sampled_from([10.0, 25.0, 29.97]))
def test_every_frame_is_returned_once_with_a_matrix_or_a_reason(kinds, fps):
    faces = {"a": made_face(150, 220, 150), "b": made_face(500, 220, 120)}
    for face in track([[faces[letter] for letter in kind] for kind in kinds], fps=fps):
        assert 0 <= face.weight <= 1
        assert (face.matrix is None) == (face.weight == 0) == (face.reason is not None)
        assert face.matrix is None or np.isfinite(face.matrix).all()


def test_without_smoothing_the_measured_pose_is_used():
    rng = np.random.default_rng(5)
    frames = [[made_face(300, 220, 150, noise=rng.normal(0, 0.5, (3, 2)))] for _ in range(20)]
    expected = fit_affine(np.stack([faces[0].control_points for faces in frames]), face_template(256))
    tracked = track(frames, TrackerOptions(smoothing=0))
    np.testing.assert_allclose(np.stack([face.matrix for face in tracked]), expected, atol=2e-2)


def test_roll_is_continuous_across_pi():
    frames = [[made_face(300, 220, 150, roll=2.9 + 0.02 * step)] for step in range(30)]
    expected = fit_affine(np.stack([faces[0].control_points for faces in frames]), face_template(256))
    np.testing.assert_allclose(np.stack([face.matrix for face in track(frames)]), expected, atol=0.2)


@pytest.mark.parametrize("options", [{"gap": -1}, {"max_yaw": 0}, {"min_inside": 2}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="out of range"):
        TrackerOptions(**options)


def test_frame_rates_must_be_positive():
    with pytest.raises(ConfigError, match="positive"):
        FaceTracker("largest", SIZE, 0, 256)
