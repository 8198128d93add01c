"""Attention and feed-forward blocks on token sequences."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import merge_heads, split_heads
from latentsync.models.layers.residual_stream import TokenStream


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
        if self.packed is None:
            query, key, value = self.project(tokens)
        else:
            packed = F.linear(tokens, self.packed)
            mixed = kernels.attend_within_frames(packed, self.heads)
            if mixed is not None:
                return mixed
            query, key, value = packed.chunk(3, dim=-1)
        return self.attend(query, split_heads(key, self.heads), split_heads(value, self.heads))

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to: (n, k, context_dim) -> two of (n, heads, k, d)."""
        return split_heads(self.to_k(context), self.heads), split_heads(self.to_v(context), self.heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, before the last projection: query (n, s, dim), the others (n, heads, k, d) -> (n, s, dim)."""
        return merge_heads(F.scaled_dot_product_attention(split_heads(query, self.heads), key, value))


class GEGLU(nn.Module):
    """Linear layer to twice the width, one half gating the other through an exact GELU."""

    packed_weight: Tensor | None
    packed_bias: Tensor | None

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)
        self.register_buffer("packed_weight", None, persistent=False)
        self.register_buffer("packed_bias", None, persistent=False)

    def pack(self) -> None:
        """Keep the weights a second time as the fused kernel needs them, for networks that are not trained any more."""
        self.packed_weight = kernels.interleave(self.proj.weight.detach())
        self.packed_bias = kernels.interleave(self.proj.bias.detach())

    def normalised_into(self, stream: TokenStream, norm: nn.LayerNorm) -> bool:
        """Put the gated, normalised tokens of a stream beside them; False if it has no room or there is no kernel."""
        if self.packed_weight is None or self.packed_bias is None:
            return False
        return stream.gate_into(norm, self.packed_weight, self.packed_bias)

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

    @property
    def projection(self) -> nn.Linear:
        """The last one."""
        return cast(nn.Linear, self.net[2])

    def add_to(self, stream: TokenStream, norm: nn.LayerNorm) -> None:
        """Add to a stream what comes of its normalised tokens."""
        stream.add(self.projection, self.net[0](stream.normalise(norm)))


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution applied to tokens: same parameters as the convolution, computed as one matrix product."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out, kernel_size=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Project the tokens: (n, s, dim_in) -> (n, s, dim_out)."""
        return F.linear(tokens, self.weight.flatten(1), self.bias)
