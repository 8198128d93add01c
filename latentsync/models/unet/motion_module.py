"""Motion module: attention across the frames of a window at every pixel.

At construction the last projection is zero, so that a network without trained motion modules is not disturbed.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from latentsync.models.layers.attention import Attention, FeedForward
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.residual_stream import TokenStream
from latentsync.models.layers.temporal_attention import attend_across_frames
from latentsync.models.unet.fused_output import WayBack
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


class TemporalAttention(Attention):
    """Self-attention across frames; positions are added first, so query, key and value all see them."""

    def __init__(self, dim: int, heads: int, max_len: int) -> None:
        super().__init__(dim, heads)
        self.pos_encoder = PositionTable(dim, max_len)

    def add_to(self, stream: TokenStream, norm: nn.LayerNorm, frames: int) -> None:
        """Add to a stream what its normalised tokens see across the frames of each window."""
        tokens = stream.normalise(norm, places=self.pos_encoder(frames))
        stream.add(self.projection, attend_across_frames(*self.project(tokens), self.heads, frames))


class TemporalTransformerBlock(nn.Module):
    """Two self-attentions across frames and a feed-forward; each normalised before and added after."""

    def __init__(self, dim: int, heads: int, max_len: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(dim, heads, max_len) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2)])
        self.ff = FeedForward(dim)
        self.ff_norm = nn.LayerNorm(dim)

    def forward(self, stream: TokenStream, frames: int) -> None:
        """Transform windows of ``frames`` frames, in the stream."""
        self.attend(stream, frames)
        self.ff.add_to(stream, self.ff_norm)

    def attend(self, stream: TokenStream, frames: int) -> None:
        """All but the feed-forward."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            cast(TemporalAttention, attention).add_to(stream, cast(nn.LayerNorm, norm), frames)

    def biases(self) -> list[Tensor]:
        """Of all layers that add to the stream, (dim,) each."""
        attentions = [cast(TemporalAttention, attention).projection for attention in self.attention_blocks]
        return [layer.bias for layer in (*attentions, self.ff.projection)]


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
        self.way_back = WayBack()

    def pack(self) -> None:
        """Join the last two projections, for networks that are not trained any more."""
        blocks = [cast(TemporalTransformerBlock, block) for block in self.transformer_blocks]
        biases = [self.proj_in.bias, *(bias for block in blocks for bias in block.biases())]
        self.way_back.pack(self.proj_out, blocks[-1].ff.projection, biases)

    def forward(self, stream: TokenStream, height: int, frames: int) -> None:
        """Mix the frames of each window, in the stream.

        stream of b times ``frames`` frames, frames <= max_len, height in positions
        """
        tokens, waiting = stream.apart()
        inner = TokenStream.project(self.proj_in, self.norm.of_tokens(tokens, height, waiting), self.way_back.room)
        *others, last = (cast(TemporalTransformerBlock, block) for block in self.transformer_blocks)
        for block in others:
            block(inner, frames)
        last.attend(inner, frames)
        self.way_back(stream, inner, last.ff, last.ff_norm, self.proj_out)


class MotionModule(nn.Module):
    """A temporal transformer under the name that published files give it."""

    def __init__(self, channels: int, heads: int, max_len: int, num_blocks: int = 1) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, max_len, num_blocks)

    def forward(self, stream: TokenStream, height: int, frames: int) -> None:
        """See `TemporalTransformer`."""
        self.temporal_transformer(stream, height, frames)
