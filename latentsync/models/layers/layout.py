"""Named tensor reshapes of the networks.

They are plain tensor methods because a compiler would trace the parser of einops patterns anew at each of hundreds of
call sites (measured: 0.1 s each). Letters: b videos, f frames, n = b * f images, c channels, s = h * w positions.
On channels-last memory most are views.
"""

import torch
from torch import Tensor


def to_video(images: Tensor, frames: int) -> Tensor:
    """Unfold frames from the batch: ((b f), c, h, w) -> (b, c, f, h, w)."""
    return images.unflatten(0, (-1, frames)).transpose(1, 2)


def to_images(video: Tensor) -> Tensor:
    """Fold frames into the batch: (b, c, f, h, w) -> ((b f), c, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)


def to_tokens(images: Tensor) -> Tensor:
    """Flatten an image's positions into a sequence: (n, c, h, w) -> (n, (h w), c)."""
    return images.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, height: int) -> Tensor:
    """Undo :func:`to_tokens`: (n, (h w), c) -> (n, c, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


def to_temporal_heads(tokens: Tensor, heads: int) -> Tensor:
    """Make each position a sequence over the frames: (f, s, (heads d)) -> (s, heads, f, d), a view."""
    return tokens.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)


def from_temporal_heads(tokens: Tensor) -> Tensor:
    """Undo :func:`to_temporal_heads`: (s, heads, f, d) -> (f, s, (heads d))."""
    return tokens.permute(2, 0, 1, 3).flatten(2)


def repeat_frames(images: Tensor, count: int) -> Tensor:
    """Repeat the whole run of frames until there are ``count``: (n, c, h, w) -> (count, c, h, w), a multiple of n."""
    if len(images) == count:
        return images
    copies = count // len(images)
    if images.is_contiguous(memory_format=torch.channels_last):
        # As tokens: a compiler may change the memory layout of images.
        return from_tokens(torch.cat([to_tokens(images)] * copies), images.shape[-2])
    return torch.cat([images] * copies)


def join_channels(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate channels: (n, c, h, w), (n, d, h, w) -> (n, c + d, h, w), channels-last where the first is."""
    if first.is_contiguous(memory_format=torch.channels_last):
        # As tokens: a compiler may change the memory layout of images.
        return from_tokens(torch.cat([to_tokens(first), to_tokens(second)], dim=-1), first.shape[-2])
    return torch.cat([first, second], dim=1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Give each attention head its channels: (n, s, (heads d)) -> (n, heads, s, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """Undo :func:`split_heads`: (n, heads, s, d) -> (n, s, (heads d))."""
    return heads.transpose(1, 2).flatten(2)
