import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError, FaceNotFoundError
from latentsync.face.geometry.affine import (
    apply_affine,
    crop_size,
    face_template,
    fit_affine,
    invert_affine,
    published_smoothing,
    square_matrix,
)


@pytest.mark.parametrize("resolution", [256, 512])
def test_matrices_match_the_published_ones(golden, resolution):
    case = golden("affine_sequence")
    points = case.inputs["landmarks3"].numpy()
    template = face_template(resolution)
    np.testing.assert_allclose(template, case.outputs[f"template_{resolution}"], atol=1e-4)
    assert crop_size(resolution) == tuple(case.outputs[f"crop_wh_{resolution}"].tolist())
    limit = case.tol["atol"]
    plain = fit_affine(np.rint(points), template)
    np.testing.assert_allclose(plain, case.outputs[f"M_nosmooth_{resolution}"], atol=limit)
    matrices, states = published_smoothing(points, template)
    np.testing.assert_allclose(matrices, case.outputs[f"M_smooth_{resolution}"], atol=limit)
    np.testing.assert_allclose(states, case.outputs[f"bias_state_{resolution}"], atol=1e-5)


def test_published_smoothing_resumes_from_its_state(golden):
    points = golden("affine_sequence").inputs["landmarks3"].numpy()
    template = face_template(256)
    whole, _ = published_smoothing(points, template)
    head, states = published_smoothing(points[:7], template)
    tail, _ = published_smoothing(points[7:], template, states[-1])
    np.testing.assert_allclose(np.concatenate([head, tail]), whole, atol=1e-3)


@given(
    scale=st.floats(0.05, 20),
    roll=st.floats(-3.1, 3.1),
    shift=st.tuples(st.floats(-4000, 4000), st.floats(-4000, 4000)),
)
def test_fit_recovers_a_transformed_template(scale, roll, shift):
    template = face_template(256)
    turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    points = template @ turn.T + np.array(shift)
    matrix = fit_affine(points[None], template)[0]
    back = matrix[:, :2].astype(np.float64) @ points.T + matrix[:, 2:]
    # float32 matrices: the error grows with the distance from the origin over the size of the face.
    np.testing.assert_allclose(back.T, template, atol=0.02 + 0.01 / scale)


def test_inverse_undoes_the_matrix():
    matrix = np.array([[0.9, -0.2, 31.0], [0.2, 0.9, -7.0]])
    points = np.array([[3.0, 4.0], [250.0, 17.0]])
    np.testing.assert_allclose(apply_affine(invert_affine(matrix), apply_affine(matrix, points)), points, atol=1e-3)


def test_square_matrix_keeps_the_outer_edges():
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    width, height = crop_size(256)
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    moved = apply_affine(square_matrix(identity, 256), corners)
    np.testing.assert_allclose(moved, [[-0.5, -0.5], [255.5, 255.5]], atol=1e-4)


def test_coincident_points_are_refused():
    with pytest.raises(FaceNotFoundError, match="coincide"):
        fit_affine(np.ones((1, 3, 2)), face_template(256))


def test_non_finite_points_are_refused():
    with pytest.raises(FaceNotFoundError):
        fit_affine(np.full((1, 3, 2), np.nan), face_template(256))


def test_tiny_resolution_is_refused():
    with pytest.raises(ConfigError, match="too small"):
        crop_size(4)
