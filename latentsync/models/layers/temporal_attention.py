"""Attention across the frames of a window, separately at every position.

Tokens stay in image order: nothing is moved in memory but what attention itself reads and writes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.models.layers.layout import from_temporal_heads, to_temporal_heads


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor:
    """Multi-head attention in which a token attends to the tokens at its own position in all frames of its window.

    query, key, value ((b frames), s, (heads d)) -> ((b frames), s, (heads d))
    """
    windows = []
    for window in zip(query.split(frames), key.split(frames), value.split(frames), strict=True):
        q, k, v = (to_temporal_heads(part, heads) for part in window)
        windows.append(from_temporal_heads(F.scaled_dot_product_attention(q, k, v)))
    return torch.cat(windows)
