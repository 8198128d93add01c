"""The reshapings of the networks, by name.

They are plain tensor methods because a compiler would trace a pattern language's parser anew at each of the hundreds
of places (measured: 0.1 s each). Letters: b videos, f frames, n = b * f pictures, c channels, s = h * w positions.
On channels-last memory most are views.
"""

import torch
from torch import Tensor


def to_video(pictures: Tensor, frames: int) -> Tensor:
    """Unfold frames from the batch: ((b f), c, h, w) -> (b, c, f, h, w)."""
    return pictures.unflatten(0, (-1, frames)).transpose(1, 2)


def to_pictures(video: Tensor) -> Tensor:
    """Fold frames into the batch: (b, c, f, h, w) -> ((b f), c, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)


def to_tokens(pictures: Tensor) -> Tensor:
    """List a picture's positions: (n, c, h, w) -> (n, (h w), c)."""
    return pictures.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, height: int) -> Tensor:
    """Lay positions out as a picture: (n, (h w), c) -> (n, c, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


def stored(tensor: Tensor) -> Tensor:
    """The same. A compiler, which must know where strides lead, computes it once and leaves it in its place."""
    return tensor.as_strided(tensor.shape, tensor.stride())


def to_tracks(tokens: Tensor, heads: int) -> Tensor:
    """List what each position shows over time: (f, s, (heads d)) -> (s, heads, f, d), a view."""
    return tokens.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)


def from_tracks(tracks: Tensor) -> Tensor:
    """Undo :func:`to_tracks`: (s, heads, f, d) -> (f, s, (heads d))."""
    return tracks.permute(2, 0, 1, 3).flatten(2)


def repeat_frames(pictures: Tensor, count: int) -> Tensor:
    """Repeat the whole run of frames until there are ``count``: (n, c, h, w) -> (count, c, h, w), a multiple of n."""
    if len(pictures) == count:
        return pictures
    copies = count // len(pictures)
    if pictures.is_contiguous(memory_format=torch.channels_last):
        # As tokens, since a compiler may lay pictures out anew.
        return from_tokens(torch.cat([to_tokens(pictures)] * copies), pictures.shape[-2])
    return torch.cat([pictures] * copies)


def join_channels(first: Tensor, second: Tensor) -> Tensor:
    """Channels of both: (n, c, h, w), (n, d, h, w) -> (n, c + d, h, w), channels-last where the first is."""
    if first.is_contiguous(memory_format=torch.channels_last):
        # As tokens, since a compiler may lay pictures out anew.
        return from_tokens(torch.cat([to_tokens(first), to_tokens(second)], dim=-1), first.shape[-2])
    return torch.cat([first, second], dim=1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Give each attention head its channels: (n, s, (heads d)) -> (n, heads, s, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """Undo :func:`split_heads`: (n, heads, s, d) -> (n, s, (heads d))."""
    return heads.transpose(1, 2).flatten(2)
