import pytest
import torch
from einops import rearrange

from latentsync.models.layers import layout

PICTURES = torch.arange(2 * 3 * 4 * 5 * 6).reshape(6, 4, 5, 6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_reshaping_is_the_pattern_it_says(memory_format):
    pictures = PICTURES.contiguous(memory_format=memory_format)
    video = rearrange(pictures, "(b f) c h w -> b c f h w", f=3)
    tokens = rearrange(pictures, "n c h w -> n (h w) c")
    tracks = rearrange(tokens, "f s (heads d) -> s heads f d", heads=2)
    heads = rearrange(tokens, "n s (heads d) -> n heads s d", heads=2)
    assert torch.equal(layout.to_video(pictures, 3), video)
    assert torch.equal(layout.to_pictures(video), pictures)
    assert torch.equal(layout.to_tokens(pictures), tokens)
    assert torch.equal(layout.from_tokens(tokens, 5), pictures)
    assert torch.equal(layout.to_tracks(tokens, 2), tracks)
    assert torch.equal(layout.from_tracks(tracks), tokens)
    assert torch.equal(layout.repeat_frames(pictures, 12), torch.cat([pictures, pictures]))
    assert torch.equal(layout.split_heads(tokens, 2), heads)
    assert torch.equal(layout.merge_heads(heads), tokens)


def test_channels_last_pictures_are_viewed_without_a_copy():
    pictures = PICTURES.contiguous(memory_format=torch.channels_last)
    views = [layout.to_video(pictures, 3), layout.to_tokens(pictures), layout.to_pictures(layout.to_video(pictures, 3))]
    views += [layout.from_tokens(layout.to_tokens(pictures), 5), layout.to_tracks(layout.to_tokens(pictures), 2)]
    assert {view.data_ptr() for view in views} == {pictures.data_ptr()}
