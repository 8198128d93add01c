"""Attention and feed-forward with packed weights, adding to a residual stream."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.weights import LayerWeights
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.attention import GEGLU, Attention, FeedForward
from latentsync.models.layers.layout import merge_heads, split_heads
from latentsync.models.layers.temporal_attention import attend_across_frames
from latentsync.models.unet.motion_module import PositionTable, TemporalAttention
from latentsync.models.unet.spatial_transformer import AudioKeysValues


class _Projections(nn.Module):
    """The weights of an attention under their published names."""

    def __init__(self, plain: Attention | TemporalAttention) -> None:
        super().__init__()
        self.heads = plain.heads
        self.to_q, self.to_k, self.to_v = (LayerWeights(layer) for layer in (plain.to_q, plain.to_k, plain.to_v))
        self.to_out = nn.ModuleList([LayerWeights(cast(nn.Linear, plain.to_out[0]))])

    @property
    def projection(self) -> LayerWeights:
        """The output projection."""
        return cast(LayerWeights, self.to_out[0])


class FusedSelfAttention(_Projections):
    """Self-attention whose query, key and value are one matrix product.

    The three weights are laid side by side in memory; the Parameters are views of it, so it takes no more memory.
    """

    packed: Tensor

    def __init__(self, plain: Attention | TemporalAttention) -> None:
        super().__init__(plain)
        projections = (self.to_q, self.to_k, self.to_v)
        if any(layer.bias is not None for layer in projections):
            raise ValueError("Only projections without biases can be packed.")
        self.register_buffer("packed", torch.cat([layer.weight.detach() for layer in projections]), persistent=False)
        for layer, part in zip(projections, self.packed.chunk(3), strict=True):
            layer.weight.data = part

    def add_to(self, stream: ResidualStream, norm: nn.LayerNorm) -> None:
        """Add to a stream the attention among its normalized tokens, frame by frame."""
        stream.add(self.projection, self._attend(stream.normalize(norm)))

    def _attend(self, tokens: Tensor) -> Tensor:
        packed = F.linear(tokens, self.packed)
        fused = kernels.attend_within_frames(packed, self.heads)
        if fused is not None:
            return fused
        query, key, value = (split_heads(part, self.heads) for part in packed.chunk(3, dim=-1))
        return merge_heads(F.scaled_dot_product_attention(query, key, value))


class FusedTemporalAttention(FusedSelfAttention):
    """Self-attention across the frames of a window, with position embeddings."""

    def __init__(self, plain: TemporalAttention) -> None:
        super().__init__(plain)
        self.pos_encoder: PositionTable = plain.pos_encoder

    def add_to_frames(self, stream: ResidualStream, norm: nn.LayerNorm, frames: int) -> None:
        """Add to a stream the attention of its normalized tokens across the frames of each window."""
        tokens = stream.normalize(norm, pos_embed=self.pos_encoder(frames))
        query, key, value = F.linear(tokens, self.packed).chunk(3, dim=-1)
        attended = kernels.attend_across_frames(query, key, value, self.heads, frames)
        if attended is None:
            attended = attend_across_frames(query, key, value, self.heads, frames)
        stream.add(self.projection, attended)


class FusedAudioAttention(_Projections):
    """Cross-attention to projected audio."""

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """See `Attention.project_context`."""
        key, value = (F.linear(context, layer.weight, layer.bias) for layer in (self.to_k, self.to_v))
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def add_to(self, stream: ResidualStream, norm: nn.LayerNorm, audio: AudioKeysValues) -> None:
        """Add to a stream the attention of its normalized tokens to the audio; guided audio doubles the stream."""
        tokens = stream.normalize(norm, last=len(audio.key))
        query = split_heads(F.linear(tokens, self.to_q.weight, self.to_q.bias), self.heads)
        # Zero audio has zero keys and values, so attention to it gives exactly the bias of the output projection.
        if audio.guided and len(stream) == len(audio.key):
            stream.repeat()
        attended = merge_heads(F.scaled_dot_product_attention(query, audio.key, audio.value))
        stream.add(self.projection, attended)


class FusedGEGLU(nn.Module):
    """GEGLU with, on request, its weights interleaved for the fused kernel."""

    packed_weight: Tensor | None
    packed_bias: Tensor | None

    def __init__(self, plain: GEGLU, *, interleaved: bool) -> None:
        super().__init__()
        self.proj = LayerWeights(plain.proj)
        weight = kernels.interleave(plain.proj.weight.detach()) if interleaved else None
        bias = kernels.interleave(plain.proj.bias.detach()) if interleaved else None
        self.register_buffer("packed_weight", weight, persistent=False)
        self.register_buffer("packed_bias", bias, persistent=False)

    def write_into(self, stream: ResidualStream, norm: nn.LayerNorm) -> bool:
        """Write the gated, normalized tokens into a stream's extra channels; False without those or a kernel."""
        if self.packed_weight is None or self.packed_bias is None:
            return False
        return stream.write_geglu(norm, self.packed_weight, self.packed_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """See `GEGLU.forward`."""
        if self.packed_weight is not None and self.packed_bias is not None:
            fused = kernels.geglu(tokens, self.packed_weight, self.packed_bias)
            if fused is not None:
                return fused
        assert self.proj.bias is not None
        return geglu_by_halves(tokens, self.proj.weight, self.proj.bias)


def geglu_by_halves(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GEGLU as two products, which makes its element-wise part twice as fast: the halves of one lie apart in memory.

    tokens (..., k), weight (2n, k), bias (2n,) -> (..., n)
    """
    values, gate = (F.linear(tokens, *half) for half in zip(weight.chunk(2), bias.chunk(2), strict=True))
    return values * F.gelu(gate)


class FusedFeedForward(nn.Module):
    """Feed-forward that adds to a residual stream."""

    def __init__(self, plain: FeedForward, *, interleaved: bool) -> None:
        super().__init__()
        gate, second = cast(GEGLU, plain.net[0]), cast(nn.Linear, plain.net[2])
        self.net = nn.Sequential(FusedGEGLU(gate, interleaved=interleaved), nn.Identity(), LayerWeights(second))

    @property
    def gate(self) -> FusedGEGLU:
        """The first layer."""
        return cast(FusedGEGLU, self.net[0])

    @property
    def projection(self) -> LayerWeights:
        """The second linear layer."""
        return cast(LayerWeights, self.net[2])

    def add_to(self, stream: ResidualStream, norm: nn.LayerNorm) -> None:
        """Add to a stream the feed-forward of its normalized tokens."""
        stream.add(self.projection, self.gate(stream.normalize(norm)))
