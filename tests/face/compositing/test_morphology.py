import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.face.compositing.morphology import blur_masks, erode


@given(before=st.integers(0, 9), after=st.integers(0, 9), seed=st.integers(0, 1000))
def test_erosion_equals_opencv(before, after, seed):
    masks = np.random.default_rng(seed).random((23, 31), dtype=np.float32)
    side = before + after + 1
    kernel = np.ones((side, side), np.uint8)
    expected = cv2.erode(masks, kernel, anchor=(before, before))
    actual = erode(torch.from_numpy(masks)[None, None], before, after)[0, 0]
    np.testing.assert_array_equal(actual.numpy(), expected)


@pytest.mark.parametrize("edge", [1, 2, 9])
def test_blur_equals_opencv(edge):
    masks = np.random.default_rng(edge).random((40, 33), dtype=np.float32)
    sigma = 0.3 * (edge - 1) + 0.8
    expected = cv2.GaussianBlur(masks, (2 * edge + 1, 2 * edge + 1), sigma)
    actual = blur_masks(torch.from_numpy(masks)[None, None], edge, sigma)[0, 0]
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-5)


def test_blur_wider_than_the_image_reflects_at_both_borders():
    masks = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    expected = cv2.GaussianBlur(masks, (9, 9), 2.0)
    np.testing.assert_allclose(blur_masks(torch.from_numpy(masks)[None, None], 4, 2.0)[0, 0], expected, atol=1e-5)


def test_blur_of_radius_zero_is_the_identity():
    masks = torch.rand(1, 1, 5, 5)
    assert torch.equal(blur_masks(masks, 0, 0.5), masks)
