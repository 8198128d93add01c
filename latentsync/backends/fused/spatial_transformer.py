"""The per-frame transformer on a residual stream."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from latentsync.backends.fused.attention import FusedAudioAttention, FusedFeedForward, FusedSelfAttention
from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.output_projection import FusedOutput
from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.weights import LayerWeights
from latentsync.models.unet.spatial_transformer import (
    AudioConditioned,
    AudioKeysValues,
    SpatialTransformer,
    TransformerBlock,
)


class FusedTransformerBlock(nn.Module):
    """The attentions of `TransformerBlock`; its feed-forward is run by `FusedOutput`."""

    def __init__(self, plain: TransformerBlock, layout: FusedLayout) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = plain.norm1, plain.norm2, plain.norm3
        self.attn1 = FusedSelfAttention(plain.attn1)
        self.attn2 = None if plain.attn2 is None else FusedAudioAttention(plain.attn2)
        self.ff = FusedFeedForward(plain.ff, interleaved=layout.geglu)

    def attend(self, stream: ResidualStream, audio: AudioKeysValues | None) -> None:
        """Add both attentions to a stream of n frames; see `TransformerBlock.forward` for the frames."""
        self.attn1.add_to(stream, self.norm1)
        if audio is not None and self.attn2 is not None and self.norm2 is not None:
            self.attn2.add_to(stream, self.norm2, audio)


class FusedSpatialTransformer(AudioConditioned):
    """`SpatialTransformer` on a residual stream."""

    def __init__(self, plain: SpatialTransformer, layout: FusedLayout) -> None:
        super().__init__()
        self.index = plain.index
        self.norm = FusedGroupNorm.of(plain.norm)
        self.proj_in, self.proj_out = LayerWeights(plain.proj_in), LayerWeights(plain.proj_out)
        block = FusedTransformerBlock(cast(TransformerBlock, plain.transformer_blocks[0]), layout)
        self.transformer_blocks = nn.ModuleList([block])
        self.output = FusedOutput()
        if layout.outputs:
            biases = [self.proj_in.bias, block.attn1.projection.bias, block.ff.projection.bias]
            audio_bias = None if block.attn2 is None else block.attn2.projection.bias
            self.output.pack(self.proj_out, block.ff.projection, biases, audio_bias)

    @property
    def block(self) -> FusedTransformerBlock:
        """The only one."""
        return cast(FusedTransformerBlock, self.transformer_blocks[0])

    def project_audio(self, audio: Tensor, *, guided: bool) -> AudioKeysValues | None:
        """See `SpatialTransformer.project_audio`."""
        attention = self.block.attn2
        return None if attention is None else AudioKeysValues(*attention.project_context(audio), guided)

    def forward(self, stream: ResidualStream, height: int, audio: AudioKeysValues | None) -> None:
        """Add to a stream of n frames, ``height`` positions high; guided audio of m frames makes it 2m frames."""
        tokens, pending_bias = stream.tokens_and_bias()
        normed = self.norm.forward_tokens(tokens, height, pending_bias)
        inner = ResidualStream.project(self.proj_in, normed, self.output.extra_channels)
        self.block.attend(inner, audio)
        self.output(stream, inner, self.block.ff, self.block.norm3, self.proj_out, with_audio=audio is not None)
