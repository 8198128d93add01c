import cv2
import numpy as np
import pytest
import torch
from einops import rearrange

from latentsync.face.geometry.resample import lanczos4_resize


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 90), (17, 12)])
def test_equals_opencv(height, width):
    image = np.random.default_rng(1).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4)
    actual = lanczos4_resize(rearrange(torch.from_numpy(image), "h w c -> c h w"), height, width)
    difference = np.abs(rearrange(actual, "c h w -> h w c").numpy().astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


def test_same_size_returns_the_input():
    image = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    assert torch.equal(lanczos4_resize(image, 9, 9), image)


def test_constant_image_stays_constant():
    image = torch.full((1, 3, 20, 15), 77, dtype=torch.uint8)
    assert torch.all((lanczos4_resize(image, 31, 40).int() - 77).abs() <= 1)
