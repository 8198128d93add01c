"""Residual blocks as compiled CUDA networks run them, against the plain ones."""

import pytest
import torch

from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.resnet import FusedResnetBlock
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import from_tokens
from latentsync.models.unet.resnet import ResnetBlock, to_channels_last
from tests.models.plain_kernels import group_moments

PLAIN = FusedLayout(inputs=False, upsample=False, geglu=False, outputs=False, winograd=False)
WINOGRAD = FusedLayout(inputs=False, upsample=False, geglu=False, outputs=False, winograd=True)


@torch.no_grad()
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("by_moments", [False, True])
@pytest.mark.parametrize(("widths", "windows"), [((8, 4), 2), ((8,), 1), ((12, 4), 1)])
def test_a_fused_block_gives_the_same(monkeypatch, widths, windows, by_moments, in_place):
    frames, out = 3, 8
    block = ResnetBlock(sum(widths), out, time_dim=6, groups=4, eps=1e-5)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    to_channels_last(block)
    parts = [torch.randn(2 * frames, width, 4, 6).contiguous(memory_format=torch.channels_last) for width in widths]
    time_emb = torch.randn(windows, 6)
    expected = block(torch.cat(parts, dim=1), time_emb, frames)
    before = [part.clone() for part in parts]
    if in_place:
        monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: True)
    if by_moments:
        monkeypatch.setattr(kernels, "group_moments", group_moments)
    fused = FusedResnetBlock(block, PLAIN)
    found = from_tokens(fused(parts, time_emb, frames).read(), 4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, parts, before)), "other layers may still need them"
    assert fused.state_dict().keys() == block.state_dict().keys()


@torch.no_grad()
def test_only_wide_convolutions_are_kept_as_matrices_too():
    block = FusedResnetBlock(ResnetBlock(640, 32, time_dim=6, groups=4, eps=1e-5), WINOGRAD)
    assert block.matrices1 is None and block.matrices2 is None
    wide = FusedResnetBlock(ResnetBlock(32, 640, time_dim=6, groups=4, eps=1e-5), WINOGRAD)
    assert wide.matrices1 is None and wide.matrices2 is not None
    assert wide.matrices2.shape == (16, 640, 640)
    assert "matrices2" not in wide.state_dict(), "published files have no such entry"
