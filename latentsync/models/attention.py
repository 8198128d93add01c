"""Attention and feed-forward blocks on token sequences, and the per-frame spatial transformer of the U-Net."""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models import kernels
from latentsync.models.layout import merge_heads, split_heads
from latentsync.models.resnet import FrameGroupNorm
from latentsync.models.token_stream import TokenStream


class HeardAudio(NamedTuple):
    """What one transformer hears: the audio through its projections, the same at every denoising step."""

    key: Tensor
    """(m, heads, k, d), one row for each of m frames."""
    value: Tensor
    """(m, heads, k, d)."""
    guided: bool
    """Whether frames without audio (half of them, in front) are to be computed beside those that hear it."""


class Attention(nn.Module):
    """Multi-head attention; keys and values come from ``context`` or, without one, from the tokens themselves."""

    packed: Tensor | None

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, *, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        # A list of one: published files call the output projection "to_out.0".
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.packable = context_dim is None and not qkv_bias
        self.register_buffer("packed", None, persistent=False)

    @property
    def projection(self) -> nn.Linear:
        """The last one."""
        return cast(nn.Linear, self.to_out[0])

    def pack(self) -> None:
        """Lay the three projections of a self-attention side by side, so that one matrix product makes all.

        For networks that are not trained any more; the weights keep their names, as views. Raises ValueError for an
        attention to something else or with biases.
        """
        projections = (self.to_q, self.to_k, self.to_v)
        if not self.packable:
            raise ValueError("Only projections of self-attention without biases can be packed.")
        self.packed = torch.cat([layer.weight.detach() for layer in projections])
        for layer, part in zip(projections, self.packed.chunk(3), strict=True):
            layer.weight.data = part

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens that attend to each other: (n, s, dim) -> three of the same shape."""
        if self.packed is None:
            return self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        query, key, value = F.linear(tokens, self.packed).chunk(3, dim=-1)
        return query, key, value

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend.

        tokens (n, s, dim), context (n, k, context_dim) or None -> (n, s, dim)
        """
        mixed = self.mix(tokens) if context is None else self.attend(self.to_q(tokens), *self.keys_and_values(context))
        output: Tensor = self.to_out[0](mixed)
        return output

    def mix(self, tokens: Tensor) -> Tensor:
        """Let tokens attend to each other, before the last projection: (n, s, dim) -> the same shape."""
        query, key, value = self.project(tokens)
        return self.attend(query, split_heads(key, self.heads), split_heads(value, self.heads))

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to: (n, k, context_dim) -> two of (n, heads, k, d)."""
        return split_heads(self.to_k(context), self.heads), split_heads(self.to_v(context), self.heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, before the last projection: query (n, s, dim), the others (n, heads, k, d) -> (n, s, dim)."""
        return merge_heads(F.scaled_dot_product_attention(split_heads(query, self.heads), key, value))


class GEGLU(nn.Module):
    """Linear layer to twice the width, one half gating the other through an exact GELU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)
        self.register_buffer("packed_weight", None, persistent=False)
        self.register_buffer("packed_bias", None, persistent=False)

    def pack(self) -> None:
        """Keep the weights a second time as the fused kernel needs them, for networks that are not trained any more."""
        self.packed_weight = kernels.interleave(self.proj.weight.detach())
        self.packed_bias = kernels.interleave(self.proj.bias.detach())

    def forward(self, tokens: Tensor) -> Tensor:
        """Gate the tokens: (..., dim_in) -> (..., dim_out)."""
        if self.packed_weight is not None and self.packed_bias is not None:
            fused = kernels.geglu(tokens, self.packed_weight, self.packed_bias)
            if fused is not None:
                return fused
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

    def add_to(self, stream: TokenStream, norm: nn.Module) -> None:
        """Add to a stream what comes of its normalised tokens."""
        stream.add(cast(nn.Linear, self.net[2]), self.net[0](norm(stream.read())))


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

    def forward(self, stream: TokenStream, audio: HeardAudio | None) -> None:
        """Transform each frame's tokens, in the stream.

        stream of n frames, audio of m frames; None leaves the audio attention out. Where the audio is guided, the
        stream then has 2m frames: n is m as long as frames with and without audio are the same, 2m later
        """
        stream.add(self.attn1.projection, self.attn1.mix(self.norm1(stream.read())))
        if audio is not None and self.attn2 is not None and self.norm2 is not None:
            self._hear(stream, audio, self.attn2, self.norm2)
        self.ff.add_to(stream, self.norm3)

    def _hear(self, stream: TokenStream, audio: HeardAudio, attention: Attention, norm: nn.LayerNorm) -> None:
        query = attention.to_q(norm(stream.read(last=len(audio.key))))
        # Zero audio has zero keys and values, so attention to it gives exactly the bias of its last projection.
        if audio.guided and len(stream) == len(audio.key):
            stream.repeat()
        stream.add(attention.projection, attention.attend(query, audio.key, audio.value))


class SpatialTransformer(nn.Module):
    """Transformer over the positions of each frame, conditioned on that frame's audio window."""

    def __init__(self, channels: int, heads: int, groups: int, audio_dim: int | None) -> None:
        super().__init__()
        self.place = 0  # among the network's transformers, set by the network
        self.norm = FrameGroupNorm(groups, channels, eps=1e-6)
        self.proj_in = PointwiseConv(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, audio_dim)])
        self.proj_out = PointwiseConv(channels, channels)

    def hear(self, audio: Tensor, *, guided: bool) -> HeardAudio | None:
        """Project audio (m, k, audio_dim) for :meth:`forward`; None for a transformer without audio attention."""
        attention = cast(TransformerBlock, self.transformer_blocks[0]).attn2
        return None if attention is None else HeardAudio(*attention.keys_and_values(audio), guided)

    def forward(self, stream: TokenStream, height: int, audio: HeardAudio | None) -> None:
        """Transform each frame, in the stream.

        stream of n frames, batch times frames, height in positions; audio from :meth:`hear` or None. Guided audio makes
        twice its own number of frames of them, if there were not so many already
        """
        inner = TokenStream.project(self.proj_in, self.norm.of_tokens(stream.read(), height))
        for block in self.transformer_blocks:
            block(inner, audio)
        stream.join(self.proj_out, inner)
