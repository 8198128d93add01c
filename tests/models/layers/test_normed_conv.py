"""Residual blocks as compiled CUDA networks run them, against the plain ones."""

import pytest
import torch

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.unet.resnet import ResnetBlock, to_channels_last
from tests.models.plain_kernels import group_moments


@torch.no_grad()
@pytest.mark.parametrize("by_moments", [False, True])
@pytest.mark.parametrize(("widths", "windows"), [((8, 4), 2), ((8,), 1), ((12, 4), 1)])
def test_a_block_in_place_gives_the_same(monkeypatch, widths, windows, by_moments):
    frames, out = 3, 8
    block = ResnetBlock(sum(widths), out, time_dim=6, groups=4, eps=1e-5)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    to_channels_last(block)
    parts = [torch.randn(2 * frames, width, 4, 6).contiguous(memory_format=torch.channels_last) for width in widths]
    time_emb = torch.randn(windows, 6)
    expected = block.open(parts, time_emb, frames).read()
    before = [part.clone() for part in parts]
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: True)
    if by_moments:
        monkeypatch.setattr(kernels, "group_moments", group_moments)
    found = block.open(parts, time_emb, frames).read()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, parts, before)), "others may still want them"


@torch.no_grad()
def test_only_wide_convolutions_are_kept_as_matrices_too():
    block = ResnetBlock(640, 32, time_dim=6, groups=4, eps=1e-5)
    block.pack()
    assert block.matrices1 is None and block.matrices2 is None
    wide = ResnetBlock(32, 640, time_dim=6, groups=4, eps=1e-5)
    wide.pack()
    assert wide.matrices1 is None and wide.matrices2 is not None
    assert wide.matrices2.shape == (16, 640, 640)
    assert "matrices2" not in wide.state_dict(), "published files know nothing of it"
