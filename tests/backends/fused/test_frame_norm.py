"""Group norm by moments against the plain one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import to_tokens


@given(batch=st.integers(1, 3), frames=st.integers(1, 5), offset=st.floats(-3, 3), size=st.integers(2, 6))
@torch.no_grad()
def test_norm_by_moments_is_the_same_norm(batch, frames, offset, size):
    norm = FusedGroupNorm(4, 16, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    hidden = torch.randn(batch * frames, 16, size, size) + offset
    by_moments = norm._by_moments(to_tokens(hidden), frames)
    torch.testing.assert_close(by_moments, to_tokens(norm(hidden, frames)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", [0, 5, 60])
@torch.no_grad()
def test_norm_by_moments_rounds_little_also_far_from_zero(offset, dtype):
    norm = FusedGroupNorm(4, 16).to(dtype)
    hidden = (torch.randn(4, 16, 8, 8) + offset).to(dtype)
    expected = to_tokens(FrameGroupNorm(4, 16).double()(hidden.double(), 2))
    tolerance = 2 * torch.finfo(dtype).eps
    assert (norm._by_moments(to_tokens(hidden), 2) - expected).abs().mean() < tolerance


@torch.no_grad()
def test_norm_by_moments_of_almost_equal_values_is_finite():
    norm = FusedGroupNorm(1, 16, eps=1e-6).half()
    hidden = torch.full((1, 16, 8, 8), 80.0, dtype=torch.float16)
    hidden[0, 0, 0, 0] += 0.0625
    normed = norm._by_moments(to_tokens(hidden), 1)
    assert normed.isfinite().all()
    assert normed.flatten()[1:].abs().max() < 0.1 < 1 < normed.flatten()[0]


@pytest.mark.gpu
@pytest.mark.parametrize("offset", [1, 5, 20])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_norm_on_gpu_is_as_exact_as_the_library_kernel(dtype, offset):
    norm = FusedGroupNorm(32, 320).to("cuda", dtype)
    hidden = (torch.randn(32, 320, 16, 16, device="cuda") + offset).to(dtype)
    expected = FrameGroupNorm(32, 320).double().to("cuda")(hidden.double(), 16)
    with torch.enable_grad():
        library = norm(hidden, 16)
    assert (norm(hidden, 16) - expected).abs().mean() < 2 * (library - expected).abs().mean()


@torch.no_grad()
def test_a_fused_norm_shares_its_parameters_and_takes_a_pending_bias():
    norm = FrameGroupNorm(4, 16, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    fused, hidden, bias = FusedGroupNorm.of(norm), torch.randn(6, 16, 3, 5), torch.randn(16)
    assert fused.weight is norm.weight and fused.bias is norm.bias and fused.eps == norm.eps
    torch.testing.assert_close(fused(hidden, 3), norm(hidden, 3))
    expected = to_tokens(norm(hidden + bias[:, None, None]))
    torch.testing.assert_close(fused.forward_tokens(to_tokens(hidden), 3, bias), expected, atol=1e-5, rtol=1e-4)
