"""Kernels as matrices against the convolution that they stand for."""

import torch
import torch.nn.functional as F

from latentsync.models.winograd import spread_kernel

SPREAD = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=torch.float64)
GATHER = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]], dtype=torch.float64)


def test_sixteen_products_make_a_convolution():
    pixels, weight = torch.randn(2, 5, 6, 8, dtype=torch.float64), torch.randn(3, 5, 3, 3, dtype=torch.float64)
    tiles = F.pad(pixels, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
    sums = torch.einsum("ia, nctuab, jb -> ijntuc", SPREAD, tiles, SPREAD)
    products = torch.einsum("ijntuc, ijco -> ijntuo", sums, spread_kernel(weight).unflatten(0, (4, 4)))
    found = torch.einsum("ai, ijntuo, bj -> notaub", GATHER, products, GATHER).flatten(4, 5).flatten(2, 3)
    torch.testing.assert_close(found, F.conv2d(pixels, weight, padding=1), atol=1e-5, rtol=1e-5)
