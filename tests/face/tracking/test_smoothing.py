import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latentsync.face.geometry.affine import face_template, fit_affine
from latentsync.face.tracking.smoothing import smooth_pose, to_matrices, to_poses
from tests.face.made_faces import made_face


@given(x=st.floats(0, 1900), y=st.floats(0, 1000), size=st.floats(40, 800), roll=st.floats(-3, 3))
def test_poses_round_trip_to_the_fitted_matrices(x, y, size, roll):
    points = made_face(x, y, size, roll).control_points[None]
    matrices = to_matrices(to_poses(points, 256), 256)
    direct = fit_affine(points, face_template(256))
    corners = np.array([[x - size, y - size, 1], [x + size, y + size, 1]])
    np.testing.assert_allclose(corners @ matrices[0].T, corners @ direct[0].T, atol=0.05)


def test_linear_motion_is_unchanged():
    offsets = np.arange(-7, 8)
    poses = np.stack([300 + 4.0 * offsets, 200 - 2.0 * offsets, 0.1 + 0.002 * offsets, 0.003 * offsets], axis=1)
    np.testing.assert_allclose(smooth_pose(offsets, poses, 7, 256), poses[7], atol=1e-6)


def test_fast_motion_is_followed():
    times = np.arange(200)
    poses = np.zeros((200, 4))
    poses[:, 0] = 400 + 60 * np.sin(2 * np.pi * 2 * times / 25)  # twice a second, 120 pixels from end to end
    smoothed = [smooth_pose(np.arange(-7, 8), poses[middle - 7 : middle + 8], 7, 256)[0] for middle in range(7, 190)]
    assert np.abs(np.array(smoothed) - poses[7:190, 0]).max() < 2


def test_noise_on_a_still_face_is_removed():
    rng = np.random.default_rng(0)
    poses = np.tile([400.0, 300.0, 0.0, 0.0], (200, 1))
    noise = 0.002 * rng.standard_normal((200, 4)) * [114.8, 114.8, 1, 1]
    noisy = poses + noise
    smoothed = np.stack(
        [smooth_pose(np.arange(-7, 8), noisy[middle - 7 : middle + 8], 7, 256) for middle in range(7, 190)]
    )
    assert np.all(smoothed.std(axis=0) < 0.5 * noise.std(axis=0))
    steps = np.diff(smoothed, axis=0).std(axis=0) / np.diff(noisy, axis=0).std(axis=0)
    assert np.all(steps < 0.2)


def test_one_sided_neighbors_do_not_cause_lag():
    offsets = np.arange(-7, 1)
    poses = np.stack([300 + 5.0 * offsets, 200 + 0.0 * offsets, 0.0 * offsets, 0.0 * offsets], axis=1)
    np.testing.assert_allclose(smooth_pose(offsets, poses, 7, 256)[0], 300, atol=1e-6)


def test_radius_zero_switches_smoothing_off():
    poses = np.random.default_rng(1).standard_normal((5, 4))
    np.testing.assert_array_equal(smooth_pose(np.arange(-2, 3), poses, 0, 256), poses[2])
