import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.unet.resnet import Downsample, ResnetBlock, Upsample, to_channels_last


@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 5),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    offset=st.floats(-30, 30),
    channels_last=st.booleans(),
)
def test_joint_norm_is_one_group_norm_over_all_frames(batch, frames, height, width, offset, channels_last):
    norm = FrameGroupNorm(4, 16, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    hidden = torch.randn(batch * frames, 16, height, width) + offset
    by_video = hidden.unflatten(0, (batch, frames)).double()
    grouped = by_video.reshape(batch, frames, 4, 4, height, width)
    mean = grouped.mean(dim=(1, 3, 4, 5), keepdim=True)
    variance = grouped.var(dim=(1, 3, 4, 5), keepdim=True, correction=0)
    normed = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(by_video.shape)
    expected = normed * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    if channels_last:
        hidden = hidden.contiguous(memory_format=torch.channels_last)
    actual = norm(hidden, frames).double()
    scale = 1 + expected.abs().max()
    assert (actual - expected.flatten(0, 1)).abs().max() < 1e-4 * scale * (1 + abs(offset))


def test_joint_norm_keeps_channels_last_memory_so_that_nothing_is_copied():
    hidden = torch.randn(6, 32, 5, 7).contiguous(memory_format=torch.channels_last)
    assert FrameGroupNorm(8, 32)(hidden, 3).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_shortcut_is_a_convolution_only_where_widths_differ():
    same, wider = ResnetBlock(16, 16, 8, groups=4, eps=1e-5), ResnetBlock(16, 24, 8, groups=4, eps=1e-5)
    assert same.conv_shortcut is None
    hidden, time_emb = torch.randn(4, 16, 5, 5), torch.randn(2, 8)
    for block in (same, wider):
        for parameter in block.conv2.parameters():
            parameter.zero_()
    torch.testing.assert_close(same(hidden, time_emb, 2), hidden)
    assert wider.conv_shortcut is not None
    expected = F.conv2d(hidden, wider.conv_shortcut.weight, wider.conv_shortcut.bias)
    torch.testing.assert_close(wider(hidden, time_emb, 2), expected)


@torch.no_grad()
def test_each_video_gets_its_own_time_embedding():
    block = ResnetBlock(16, 16, 8, groups=4, eps=1e-5)
    hidden, time_emb = torch.randn(2, 16, 5, 5), torch.randn(2, 8)
    both = block(hidden, time_emb, 1)
    torch.testing.assert_close(both[1:], block(hidden[1:], time_emb[1:], 1))
    assert (both[1:] - block(hidden[1:], time_emb[:1], 1)).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7), (1, 2)])
def test_resampling_there_and_back_returns_to_the_size(height, width):
    hidden = torch.randn(2, 4, height, width)
    small = Downsample(4)(hidden)
    assert small.shape == (2, 4, -(-height // 2), -(-width // 2))
    assert Upsample(4)(small, hidden.shape[-2:]).shape == hidden.shape


def test_channels_last_keeps_values_and_marks_only_convolutions():
    block = ResnetBlock(16, 24, 8, groups=4, eps=1e-5)
    before = {key: tensor.clone() for key, tensor in block.state_dict().items()}
    to_channels_last(block)
    assert block.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(dict(block.state_dict()), before)
