"""Attention and feed-forward blocks on token sequences, and the per-frame spatial transformer of the U-Net."""

import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layout import from_tokens, merge_heads, split_heads, to_tokens
from latentsync.models.resnet import FrameGroupNorm


class Attention(nn.Module):
    """Multi-head attention; keys and values come from ``context`` or, without one, from the tokens themselves."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, *, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        # A list of one: published files call the output projection "to_out.0".
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend.

        tokens (n, s, dim), context (n, k, context_dim) or None -> (n, s, dim)
        """
        source = tokens if context is None else context
        query = split_heads(self.to_q(tokens), self.heads)
        key = split_heads(self.to_k(source), self.heads)
        value = split_heads(self.to_v(source), self.heads)
        output: Tensor = self.to_out[0](merge_heads(F.scaled_dot_product_attention(query, key, value)))
        return output


class GEGLU(nn.Module):
    """Linear layer to twice the width, one half gating the other through an exact GELU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Gate the tokens: (..., dim_in) -> (..., dim_out)."""
        # Two products instead of one whose halves lie apart in memory: the element-wise part is then twice as fast.
        weights, biases = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        values, gate = (F.linear(tokens, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        return values * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The identity holds the place of a dropout so that the second linear layer keeps its published name "net.2".
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform every token by itself: (..., dim) -> (..., dim)."""
        output: Tensor = self.net(tokens)
        return output


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution applied to tokens: same parameters as the convolution, computed as one matrix product."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out, kernel_size=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Project the tokens: (n, s, dim_in) -> (n, s, dim_out)."""
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the audio tokens, feed-forward; each normalised before and added after."""

    def __init__(self, dim: int, heads: int, audio_dim: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim) if audio_dim else None
        self.attn2 = Attention(dim, heads, audio_dim) if audio_dim else None
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, tokens: Tensor, audio: Tensor | None) -> Tensor:
        """Transform one frame's tokens.

        tokens (n, s, dim), audio (n, k, audio_dim); None leaves the audio attention out -> (n, s, dim)
        """
        tokens = tokens + self.attn1(self.norm1(tokens))
        if audio is not None and self.attn2 is not None and self.norm2 is not None:
            tokens = tokens + self.attn2(self.norm2(tokens), audio)
        return tokens + self.ff(self.norm3(tokens))


class SpatialTransformer(nn.Module):
    """Transformer over the positions of each frame, conditioned on that frame's audio window."""

    def __init__(self, channels: int, heads: int, groups: int, audio_dim: int | None) -> None:
        super().__init__()
        self.norm = FrameGroupNorm(groups, channels, eps=1e-6)
        self.proj_in = PointwiseConv(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, audio_dim)])
        self.proj_out = PointwiseConv(channels, channels)

    def forward(self, hidden: Tensor, audio: Tensor | None) -> Tensor:
        """Transform each frame.

        hidden (n, c, h, w), audio (n, k, audio_dim) or None -> (n, c, h, w); n = batch times frames
        """
        tokens = self.proj_in(to_tokens(self.norm(hidden)))
        for block in self.transformer_blocks:
            tokens = block(tokens, audio)
        return hidden + from_tokens(self.proj_out(tokens), hidden.shape[-2])
