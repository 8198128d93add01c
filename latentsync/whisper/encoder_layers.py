"""Layers of Whisper's audio encoder, with the parameter names of OpenAI's checkpoints."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class WideLayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32 whatever the precision of its input."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise: (..., d) of any float dtype -> the same shape and dtype."""
        return super().forward(hidden.float()).to(hidden.dtype)


class EncoderAttention(nn.Module):
    """Multi-head self-attention without a bias of the keys.

    Args:
        width: of the tokens.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend: (b, t, d) -> (b, t, d)."""
        projected = (layer(hidden) for layer in (self.query, self.key, self.value))
        query, key, value = (rearrange(each, "b t (h d) -> b h t d", h=self.heads) for each in projected)
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.out(rearrange(attended, "b h t d -> b t (h d)"))
        return output


class EncoderBlock(nn.Module):
    """Pre-norm transformer block.

    Args:
        width: of the tokens.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = EncoderAttention(width, heads)
        self.attn_ln = WideLayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = WideLayerNorm(width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (b, t, d) -> (b, t, d)."""
        hidden = hidden + self.attn(self.attn_ln(hidden))
        output: Tensor = hidden + self.mlp(self.mlp_ln(hidden))
        return output


class EncoderStack(nn.Module):
    """The encoder's layers; `latentsync.whisper.audio_encoder.AudioEncoder` runs them.

    Args:
        n_mels: mel bands.
        positions: of 20 ms in one segment.
        width: of the tokens.
        heads: attention heads.
        layers: transformer blocks.
    """

    def __init__(self, n_mels: int, positions: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.positional_embedding: Tensor
        self.register_buffer("positional_embedding", _sinusoids(positions, width))
        self.blocks = nn.ModuleList([EncoderBlock(width, heads) for _ in range(layers)])
        self.ln_post = WideLayerNorm(width)


def _sinusoids(length: int, channels: int, max_timescale: float = 10000.0) -> Tensor:
    """(length, channels) sines in the first half of the channels, cosines in the second."""
    increment = math.log(max_timescale) / (channels // 2 - 1)
    inverse_timescales = torch.exp(-increment * torch.arange(channels // 2))
    scaled_time = torch.arange(length)[:, None] * inverse_timescales[None, :]
    return torch.cat([torch.sin(scaled_time), torch.cos(scaled_time)], dim=1)
