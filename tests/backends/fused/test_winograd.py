"""Kernels as matrices against the convolution that they stand for."""

import torch
import torch.nn.functional as F

from latentsync.backends.fused.winograd import transform_kernel
from tests.models.plain_kernels import convolve_by_matrices


def test_sixteen_products_make_a_convolution():
    pixels, weight = torch.randn(2, 5, 6, 8, dtype=torch.float64), torch.randn(3, 5, 3, 3, dtype=torch.float64)
    found = convolve_by_matrices(pixels, transform_kernel(weight))
    torch.testing.assert_close(found, F.conv2d(pixels, weight, padding=1), atol=1e-5, rtol=1e-5)
