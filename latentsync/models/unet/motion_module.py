"""Motion module: attention across the frames of a window at every pixel.

The output projection is initialized to zero, so that an untrained motion module is an identity.
"""

import math

import torch
from torch import Tensor, nn

from latentsync.models.layers.attention import FeedForward
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import from_tokens, to_tokens
from latentsync.models.layers.temporal_attention import attend_across_frames
from latentsync.models.unet.spec import MOTION_NORM_GROUPS


class ZeroLinear(nn.Linear):
    """A linear layer that starts as zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class PositionTable(nn.Module):
    """Fixed sine/cosine table of frame positions, kept in the state dict as published files have it."""

    pe: Tensor

    def __init__(self, dim: int, max_len: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.empty(1, max_len, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the table: sines on even, cosines on odd channels."""
        if self.pe.is_meta:  # filled later; on the meta device torch.arange imports the compiler, which takes seconds
            return
        _, max_len, dim = self.pe.shape
        position = torch.arange(max_len, dtype=torch.float32)
        rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
        angle = torch.outer(position, rate)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None]
        self.pe = table.to(self.pe.device, self.pe.dtype)

    def forward(self, frames: int) -> Tensor:
        """Positions of the frames of a window: (frames, dim)."""
        return self.pe[0, :frames]


class TemporalAttention(nn.Module):
    """Self-attention across frames; position embeddings are added before query, key and value are projected."""

    def __init__(self, dim: int, heads: int, max_len: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.pos_encoder = PositionTable(dim, max_len)

    def forward(self, hidden_states: Tensor, frames: int) -> Tensor:
        """Attend across the frames of each window: ((b frames), s, dim) -> the same shape."""
        pos_embed = self.pos_encoder(frames)[:, None]
        hidden_states = (hidden_states.unflatten(0, (-1, frames)) + pos_embed).flatten(0, 1)
        query, key, value = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        output: Tensor = self.to_out[0](attend_across_frames(query, key, value, self.heads, frames))
        return output


class TemporalTransformerBlock(nn.Module):
    """Two self-attentions across frames and a feed-forward, each pre-norm with a residual connection."""

    def __init__(self, dim: int, heads: int, max_len: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(dim, heads, max_len) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2)])
        self.ff = FeedForward(dim)
        self.ff_norm = nn.LayerNorm(dim)

    def forward(self, hidden_states: Tensor, frames: int) -> Tensor:
        """Transform windows of ``frames`` frames: ((b frames), s, dim) -> the same shape."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            hidden_states = hidden_states + attention(norm(hidden_states), frames)
        output: Tensor = hidden_states + self.ff(self.ff_norm(hidden_states))
        return output


class TemporalTransformer(nn.Module):
    """Transformer across the frames at every pixel of a window."""

    def __init__(self, channels: int, heads: int, max_len: int, num_blocks: int) -> None:
        super().__init__()
        self.norm = FrameGroupNorm(MOTION_NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [TemporalTransformerBlock(channels, heads, max_len) for _ in range(num_blocks)]
        )
        self.proj_out = ZeroLinear(channels, channels)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        """Mix the frames of each window: ((b frames), channels, h, w), frames <= max_len -> the same shape."""
        hidden_states = self.proj_in(to_tokens(self.norm(hidden)))
        for block in self.transformer_blocks:
            hidden_states = block(hidden_states, frames)
        return hidden + from_tokens(self.proj_out(hidden_states), hidden.shape[-2])


class MotionModule(nn.Module):
    """A temporal transformer under the name that published files give it."""

    def __init__(self, channels: int, heads: int, max_len: int, num_blocks: int = 1) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, max_len, num_blocks)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        """See `TemporalTransformer`."""
        output: Tensor = self.temporal_transformer(hidden, frames)
        return output
