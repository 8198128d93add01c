"""The temporal transformer on a residual stream."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from latentsync.backends.fused.attention import FusedFeedForward, FusedTemporalAttention
from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.output_projection import FusedOutput
from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.weights import LayerWeights
from latentsync.models.unet.motion_module import (
    MotionModule,
    TemporalAttention,
    TemporalTransformer,
    TemporalTransformerBlock,
)


class FusedTemporalBlock(nn.Module):
    """`TemporalTransformerBlock` on a residual stream."""

    def __init__(self, plain: TemporalTransformerBlock, layout: FusedLayout) -> None:
        super().__init__()
        attentions = [cast(TemporalAttention, attention) for attention in plain.attention_blocks]
        self.attention_blocks = nn.ModuleList([FusedTemporalAttention(attention) for attention in attentions])
        self.norms = plain.norms
        self.ff = FusedFeedForward(plain.ff, interleaved=layout.geglu)
        self.ff_norm = plain.ff_norm

    def forward(self, stream: ResidualStream, frames: int) -> None:
        """Add to a stream of windows of ``frames`` frames."""
        self.attend(stream, frames)
        self.ff.add_to(stream, self.ff_norm)

    def attend(self, stream: ResidualStream, frames: int) -> None:
        """All but the feed-forward."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            cast(FusedTemporalAttention, attention).add_to_frames(stream, cast(nn.LayerNorm, norm), frames)

    def biases(self) -> list[Tensor | None]:
        """Of all layers that add to the stream, (dim,) each."""
        attentions = [cast(FusedTemporalAttention, attention).projection for attention in self.attention_blocks]
        return [layer.bias for layer in (*attentions, self.ff.projection)]


class FusedTemporalTransformer(nn.Module):
    """`TemporalTransformer` on a residual stream."""

    def __init__(self, plain: TemporalTransformer, layout: FusedLayout) -> None:
        super().__init__()
        self.norm = FusedGroupNorm.of(plain.norm)
        self.proj_in, self.proj_out = LayerWeights(plain.proj_in), LayerWeights(plain.proj_out)
        blocks = [FusedTemporalBlock(cast(TemporalTransformerBlock, b), layout) for b in plain.transformer_blocks]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.output = FusedOutput()
        if layout.outputs:
            biases = [self.proj_in.bias, *(bias for block in blocks for bias in block.biases())]
            self.output.pack(self.proj_out, blocks[-1].ff.projection, biases)

    def forward(self, stream: ResidualStream, height: int, frames: int) -> None:
        """Add to a stream of windows of ``frames`` frames, ``height`` positions high."""
        tokens, pending_bias = stream.tokens_and_bias()
        normed = self.norm.forward_tokens(tokens, height, pending_bias)
        inner = ResidualStream.project(self.proj_in, normed, self.output.extra_channels)
        *others, last = (cast(FusedTemporalBlock, block) for block in self.transformer_blocks)
        for block in others:
            block(inner, frames)
        last.attend(inner, frames)
        self.output(stream, inner, last.ff, last.ff_norm, self.proj_out)


class FusedMotionModule(nn.Module):
    """`MotionModule` on a residual stream."""

    def __init__(self, plain: MotionModule, layout: FusedLayout) -> None:
        super().__init__()
        self.temporal_transformer = FusedTemporalTransformer(plain.temporal_transformer, layout)

    def forward(self, stream: ResidualStream, height: int, frames: int) -> None:
        """See `FusedTemporalTransformer`."""
        self.temporal_transformer(stream, height, frames)
