import pytest
import torch
from einops import rearrange

from latentsync.models.layers import layout

IMAGES = torch.arange(2 * 3 * 4 * 5 * 6).reshape(6, 4, 5, 6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_reshaping_is_the_pattern_it_says(memory_format):
    images = IMAGES.contiguous(memory_format=memory_format)
    video = rearrange(images, "(b f) c h w -> b c f h w", f=3)
    tokens = rearrange(images, "n c h w -> n (h w) c")
    temporal = rearrange(tokens, "f s (heads d) -> s heads f d", heads=2)
    heads = rearrange(tokens, "n s (heads d) -> n heads s d", heads=2)
    assert torch.equal(layout.to_video(images, 3), video)
    assert torch.equal(layout.to_images(video), images)
    assert torch.equal(layout.to_tokens(images), tokens)
    assert torch.equal(layout.from_tokens(tokens, 5), images)
    assert torch.equal(layout.to_temporal_heads(tokens, 2), temporal)
    assert torch.equal(layout.from_temporal_heads(temporal), tokens)
    assert torch.equal(layout.repeat_frames(images, 12), torch.cat([images, images]))
    assert torch.equal(layout.split_heads(tokens, 2), heads)
    assert torch.equal(layout.merge_heads(heads), tokens)


def test_channels_last_images_are_viewed_without_a_copy():
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    views = [layout.to_video(images, 3), layout.to_tokens(images), layout.to_images(layout.to_video(images, 3))]
    views += [layout.from_tokens(layout.to_tokens(images), 5), layout.to_temporal_heads(layout.to_tokens(images), 2)]
    assert {view.data_ptr() for view in views} == {images.data_ptr()}
