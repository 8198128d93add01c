"""The per-frame transformer of the U-Net: positions attend to each other and to the audio of their frame."""

from typing import NamedTuple, cast

from torch import Tensor, nn

from latentsync.models.layers.attention import Attention, FeedForward, PointwiseConv
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.residual_stream import TokenStream
from latentsync.models.unet.fused_output import WayBack


class HeardAudio(NamedTuple):
    """What one transformer hears: the audio through its projections, the same at every denoising step."""

    key: Tensor
    """(m, heads, k, d), one row for each of m frames."""
    value: Tensor
    """(m, heads, k, d)."""
    guided: bool
    """Whether frames without audio (half of them, in front) are to be computed beside those that hear it."""


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
        self.attend(stream, audio)
        self.ff.add_to(stream, self.norm3)

    def attend(self, stream: TokenStream, audio: HeardAudio | None) -> None:
        """All but the feed-forward."""
        stream.add(self.attn1.projection, self.attn1.mix(stream.normalise(self.norm1)))
        if audio is not None and self.attn2 is not None and self.norm2 is not None:
            self._hear(stream, audio, self.attn2, self.norm2)

    def _hear(self, stream: TokenStream, audio: HeardAudio, attention: Attention, norm: nn.LayerNorm) -> None:
        query = attention.to_q(stream.normalise(norm, last=len(audio.key)))
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
        self.way_back = WayBack()

    @property
    def block(self) -> TransformerBlock:
        """The only one."""
        return cast(TransformerBlock, self.transformer_blocks[0])

    def pack(self) -> None:
        """Join the last two projections, for networks that are not trained any more."""
        block = self.block
        biases = [cast(Tensor, self.proj_in.bias), block.attn1.projection.bias, block.ff.projection.bias]
        audio_bias = None if block.attn2 is None else block.attn2.projection.bias
        self.way_back.pack(self.proj_out, block.ff.projection, biases, audio_bias)

    def hear(self, audio: Tensor, *, guided: bool) -> HeardAudio | None:
        """Project audio (m, k, audio_dim) for :meth:`forward`; None for a transformer without audio attention."""
        attention = self.block.attn2
        return None if attention is None else HeardAudio(*attention.keys_and_values(audio), guided)

    def forward(self, stream: TokenStream, height: int, audio: HeardAudio | None) -> None:
        """Transform each frame, in the stream.

        stream of n frames, batch times frames, height in positions; audio from :meth:`hear` or None. Guided audio makes
        twice its own number of frames of them, if there were not so many already
        """
        tokens, waiting = stream.apart()
        normed = self.norm.of_tokens(tokens, height, waiting)
        inner = TokenStream.project(self.proj_in, normed, self.way_back.room)
        self.block.attend(inner, audio)
        self.way_back(stream, inner, self.block.ff, self.block.norm3, self.proj_out, heard=audio is not None)
