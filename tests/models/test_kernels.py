"""The fused kernels against the plain formulas that they stand for."""

import pytest
import torch
import torch.nn.functional as F

from latentsync.models import kernels
from latentsync.models.layout import from_tracks, to_tracks


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def test_without_cuda_or_with_gradients_nothing_is_fused():
    assert not kernels.usable(torch.zeros(1, dtype=torch.float16))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "width", "frames", "positions"), [(8, 40, 16, 64), (8, 80, 16, 34), (2, 24, 8, 2)])
def test_attention_across_frames(heads, width, frames, positions, dtype):
    packed = torch.randn(2 * frames, positions, 3 * heads * width, device="cuda", dtype=dtype)
    query, key, value = packed.chunk(3, dim=-1)  # strided, as packed projections are
    with torch.inference_mode():
        assert kernels.usable(query) and kernels.temporal_fits(query, heads, frames)
        found = kernels.attend_across_frames(query, key, value, heads, frames)
    expected = []
    for parts in zip(*(part.double().split(frames) for part in (query, key, value)), strict=True):
        q, k, v = (to_tracks(part, heads) for part in parts)
        expected.append(from_tracks(F.scaled_dot_product_attention(q, k, v)))
    assert relative_error(found, torch.cat(expected)) < (1e-3 if dtype == torch.float16 else 8e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(128, 64), (4096, 320), (384, 640)])
def test_geglu(rows, width, dtype):
    tokens = torch.randn(2, rows // 2, width, device="cuda", dtype=dtype)
    weight = torch.randn(8 * width, width, device="cuda", dtype=dtype) / width**0.5
    bias = torch.randn(8 * width, device="cuda", dtype=dtype)
    assert kernels.geglu_fits(tokens, weight)
    found = kernels.geglu(tokens, kernels.interleave(weight), kernels.interleave(bias))
    values, gate = F.linear(tokens.double(), weight.double(), bias.double()).chunk(2, dim=-1)
    assert relative_error(found, values * F.gelu(gate)) < (1e-3 if dtype == torch.float16 else 8e-3)


@pytest.mark.gpu
def test_sizes_that_no_tile_divides_are_left_to_the_library():
    tokens, weight = torch.zeros(130, 64, device="cuda"), torch.zeros(512, 64, device="cuda")
    assert not kernels.geglu_fits(tokens, weight)
    assert not kernels.temporal_fits(torch.zeros(10, 8, 64, device="cuda"), heads=8, frames=5)
