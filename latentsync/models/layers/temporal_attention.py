"""Attention across the frames of a window, at every position by itself.

Tokens stay in the order of pictures: nothing is moved in memory for it but what attention itself reads and writes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import from_tracks, to_tracks


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor:
    """Multi-head attention in which a token sees the tokens at its own position in all frames of its window.

    query, key, value ((b frames), s, (heads d)) -> ((b frames), s, (heads d))
    """
    fused = kernels.attend_across_frames(query, key, value, heads, frames)
    if fused is not None:
        return fused
    windows = []
    for q, k, v in zip(query.split(frames), key.split(frames), value.split(frames), strict=True):
        mixed = F.scaled_dot_product_attention(to_tracks(q, heads), to_tracks(k, heads), to_tracks(v, heads))
        windows.append(from_tracks(mixed))
    return torch.cat(windows)
