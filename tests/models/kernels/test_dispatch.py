"""The fused kernels against the plain formulas that they stand for."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentsync.backends.fused.frame_norm import apply_scale_shift
from latentsync.backends.fused.winograd import transform_kernel
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import (
    from_temporal_heads,
    from_tokens,
    merge_heads,
    split_heads,
    to_temporal_heads,
    to_tokens,
)

CUDA = torch.device("cuda")


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def test_without_a_gpu_there_is_no_fused_answer():
    tokens = torch.zeros(128, 64, dtype=torch.float16)
    with torch.inference_mode():
        assert kernels.geglu(tokens, torch.zeros(256, 64), torch.zeros(256)) is None
        query = torch.zeros(16, 2, 32)
        assert kernels.attend_across_frames(query, query, query, heads=2, frames=16) is None
        assert kernels.attend_within_frames(torch.zeros(1, 1024, 120), heads=1) is None
        assert kernels.layer_norm(query, 16, None, nn.LayerNorm(32), None) is None
        assert not kernels.geglu_into(torch.zeros(128, 192), tokens, torch.zeros(256, 64), torch.zeros(256))


def test_a_kernel_that_does_not_run_is_reported_once_and_disabled(monkeypatch, caplog):
    def fail(device):
        raise RuntimeError("Failed to find C compiler.\nmore")

    for name in ("_enabled", "_refused", "_tried"):
        monkeypatch.setattr(kernels, name, type(getattr(kernels, name))())
    monkeypatch.setattr(kernels, "_TRIALS", {"attention across frames": fail, "GEGLU": lambda device: None})
    kernels.enable(CUDA)
    kernels.enable(CUDA)
    assert [record.getMessage() for record in caplog.records] == [
        "The fused kernel for attention across frames cannot be used (Failed to find C compiler.); "
        "falling back to slower code"
    ]
    assert not kernels.fuses_geglu()


def test_a_kernel_that_one_of_two_gpus_cannot_run_is_used_on_neither(monkeypatch):
    able, unable = torch.device("cuda", 0), torch.device("cuda", 1)
    for order in ((able, unable), (unable, able)):
        for name in ("_enabled", "_refused", "_tried"):
            monkeypatch.setattr(kernels, name, type(getattr(kernels, name))())
        monkeypatch.setattr(kernels, "_TRIALS", {"GEGLU": lambda device: kernels if device == able else None})
        for device in order:
            kernels.enable(device)
        assert not kernels.fuses_geglu()
        kernels.enable(able)
        assert not kernels.fuses_geglu()


def test_a_cpu_tries_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "_TRIALS", {"GEGLU": pytest.fail})
    kernels.enable(torch.device("cpu"))


def test_values_and_gates_stand_in_turn():
    assert kernels.interleave(torch.arange(6)).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "width", "frames", "positions"), [(8, 40, 16, 64), (8, 80, 16, 34), (2, 24, 8, 2)])
def test_attention_across_frames(heads, width, frames, positions, dtype):
    kernels.enable(CUDA)
    packed = torch.randn(2 * frames, positions, 3 * heads * width, device=CUDA, dtype=dtype)
    query, key, value = packed.chunk(3, dim=-1)  # strided, as packed projections are
    assert kernels.attend_across_frames(query, key, value, heads, frames) is None, "gradients may be wanted"
    with torch.inference_mode():
        found = kernels.attend_across_frames(query, key, value, heads, frames)
    assert found is not None
    expected = []
    for parts in zip(*(part.double().split(frames) for part in (query, key, value)), strict=True):
        q, k, v = (to_temporal_heads(part, heads) for part in parts)
        expected.append(from_temporal_heads(F.scaled_dot_product_attention(q, k, v)))
    assert relative_error(found, torch.cat(expected)) < (1e-3 if dtype == torch.float16 else 8e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(128, 64), (4096, 320), (384, 640)])
def test_geglu(rows, width, dtype):
    kernels.enable(CUDA)
    if not kernels.fuses_geglu():
        pytest.skip("this GPU is too small for the kernel")
    tokens = torch.randn(2, rows // 2, width, device=CUDA, dtype=dtype)
    weight = torch.randn(8 * width, width, device=CUDA, dtype=dtype) / width**0.5
    bias = torch.randn(8 * width, device=CUDA, dtype=dtype)
    with torch.inference_mode():
        found = kernels.geglu(tokens, kernels.interleave(weight), kernels.interleave(bias))
    assert found is not None
    values, gate = F.linear(tokens.double(), weight.double(), bias.double()).chunk(2, dim=-1)
    assert relative_error(found, values * F.gelu(gate)) < (1e-3 if dtype == torch.float16 else 8e-3)


@pytest.mark.gpu
def test_geglu_beside_what_is_there():
    kernels.enable(CUDA)
    if not kernels.fuses_geglu():
        pytest.skip("this GPU is too small for the kernel")
    tokens = torch.randn(2, 64, 64, device=CUDA, dtype=torch.float16)
    weight, bias = torch.randn(512, 64, device=CUDA).half() / 8, torch.randn(512, device=CUDA).half()
    wide = torch.randn(2, 64, 64 + 256, device=CUDA, dtype=torch.float16)
    before = wide[..., :64].clone()
    with torch.inference_mode():
        expected = kernels.geglu(tokens, weight, bias)
        assert expected is not None and kernels.geglu_into(wide, tokens, weight, bias)
    assert torch.equal(wide[..., 64:], expected)
    assert torch.equal(wide[..., :64], before)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("width", "extra", "frames", "last"), [(320, 1280, 4, 8), (640, 0, 4, 4), (24, 8, 2, 6)])
def test_layer_norm(width, extra, frames, last, dtype):
    kernels.enable(CUDA)
    tokens = torch.randn(8, 12, width + extra, device=CUDA, dtype=dtype) + 3
    norm = nn.LayerNorm(width, device=CUDA, dtype=dtype)
    pending_bias, pos_embed = (torch.randn(*shape, width, device=CUDA, dtype=dtype) for shape in ((), (frames,)))
    with torch.inference_mode():
        for parameter in norm.parameters():
            parameter.normal_()
        found = kernels.layer_norm(tokens, last, pending_bias, norm, pos_embed)
        plain = kernels.layer_norm(tokens, last, None, norm, None)
    doubled = copy.deepcopy(norm).double()
    expected = doubled(tokens[-last:, :, :width].double() + pending_bias.double())
    expected = (expected.unflatten(0, (-1, frames)) + pos_embed.double()[:, None]).flatten(0, 1)
    tolerance = 1e-3 if dtype == torch.float16 else 8e-3
    assert relative_error(found, expected) < tolerance
    assert relative_error(plain, doubled(tokens[-last:, :, :width].double())) < tolerance


def normed(parts, added, norm, frames):
    """Group norm of windows, by the book: tokens (n, s, c) -> (n, s, all c) double."""
    tokens = torch.cat(parts, dim=-1).double().unflatten(0, (-1, frames))
    if added is not None:
        tokens = tokens + added.double()[:, None, None]
    images = tokens.permute(0, 3, 1, 2)
    weight, bias = norm.weight.double(), norm.bias.double()
    return F.group_norm(images, norm.num_groups, weight, bias, norm.eps).permute(0, 2, 3, 1).flatten(0, 1)


@pytest.fixture
def compiling(monkeypatch):
    """What only compiled networks use."""
    kernels.enable(CUDA)
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: True)


@pytest.mark.gpu
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("frames", "rows_added"), [(4, 2), (1, 1), (8, None)])
def test_group_norm_and_convolution(compiling, frames, rows_added, dtype):
    tolerance = 1.5e-3 if dtype == torch.float16 else 1e-2
    draw = partial(torch.randn, device=CUDA, dtype=dtype)
    parts = [draw(8, 96, 128) + 1, draw(8, 96, 64)]
    norm = nn.GroupNorm(32, 192, device=CUDA, dtype=dtype)
    for parameter in norm.parameters():
        parameter.normal_()
    added = None if rows_added is None else draw(rows_added, 192)
    vectors = kernels.group_moments(parts, added, norm, frames)
    assert vectors is not None
    expected = normed(parts, added, norm, frames)
    assert relative_error(apply_scale_shift(torch.cat(parts, dim=-1), vectors), expected) < tolerance
    weight, residual = draw(64, 192, 3, 3) / 40, draw(8, 96, 64)
    found = kernels.convolve_normed(parts, vectors, transform_kernel(weight), 8, residual)
    assert found is not None
    plain = F.conv2d(from_tokens(F.silu(expected), 8), weight.double(), padding=1)
    assert relative_error(found, to_tokens(plain) + residual.double()) < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "width", "positions"), [(8, 40, 1024), (2, 64, 1152)])
@pytest.mark.parametrize("sharpness", [1, 12])
def test_attention_within_frames(heads, width, positions, sharpness, dtype):
    """With sharp scores the estimate of the highest ones fails for many rows."""
    kernels.enable(CUDA)
    packed = torch.randn(2, positions, 3 * heads * width, device=CUDA, dtype=dtype)
    packed[..., : heads * width] *= sharpness
    with torch.inference_mode():
        found = kernels.attend_within_frames(packed, heads)
    if found is None:
        pytest.skip("this GPU is too small for the kernel")
    query, key, value = (split_heads(part, heads) for part in packed.double().chunk(3, dim=-1))
    expected = merge_heads(F.scaled_dot_product_attention(query, key, value))
    assert relative_error(found, expected) < (1e-3 if dtype == torch.float16 else 8e-3)


@pytest.mark.gpu
def test_sizes_that_no_tile_divides_are_left_to_the_library():
    kernels.enable(CUDA)
    tokens, weight = (torch.zeros(rows, 64, device=CUDA, dtype=torch.float16) for rows in (130, 512))
    with torch.inference_mode():
        assert kernels.geglu(tokens, weight, weight[:, 0]) is None
        query = torch.zeros(10, 8, 64, device=CUDA, dtype=torch.float16)
        assert kernels.attend_across_frames(query, query, query, heads=8, frames=5) is None
        assert kernels.attend_within_frames(query, heads=1) is None
        assert kernels.layer_norm(query[:, :6], 10, None, nn.LayerNorm(64, device=CUDA), None) is None
