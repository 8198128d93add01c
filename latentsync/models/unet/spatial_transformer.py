"""The per-frame transformer of the U-Net: positions attend to each other and to the audio of their frame."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from latentsync.models.layers.attention import Attention, FeedForward
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import from_tokens, repeat_frames, to_tokens


class AudioKeysValues(NamedTuple):
    """The audio as one transformer attends to it: projected once per window, the same at every denoising step."""

    key: Tensor
    """(m, heads, k, d), one row for each of m frames."""
    value: Tensor
    """(m, heads, k, d)."""
    guided: bool
    """Whether to compute every frame twice: first all with zero audio, then all with this audio."""


class AudioConditioned(nn.Module):
    """A transformer with audio cross-attention, one of several in a network.

    Attributes:
        index: position among the network's transformers, set by the network.
    """

    index: int = 0

    def project_audio(self, audio: Tensor, *, guided: bool) -> AudioKeysValues | None:
        """Keys and values of audio (m, k, audio_dim); None where there is no audio attention."""
        raise NotImplementedError


class TransformerBlock(nn.Module):
    """Self-attention, audio cross-attention and a feed-forward, each pre-norm with a residual connection."""

    def __init__(self, dim: int, heads: int, audio_dim: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim) if audio_dim else None
        self.attn2 = Attention(dim, heads, audio_dim) if audio_dim else None
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, hidden_states: Tensor, audio: AudioKeysValues | None) -> Tensor:
        """Transform each frame's tokens.

        hidden_states (n, s, dim), audio of m frames or None, which skips the audio attention -> (n, s, dim). Guided
        audio gives (2m, s, dim): n is m while frames with and without audio are still the same, 2m afterwards.
        """
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states))
        if audio is not None and self.attn2 is not None and self.norm2 is not None:
            hidden_states = self._attend_to_audio(hidden_states, audio, self.attn2, self.norm2)
        output: Tensor = hidden_states + self.ff(self.norm3(hidden_states))
        return output

    def _attend_to_audio(
        self, hidden_states: Tensor, audio: AudioKeysValues, attention: Attention, norm: nn.LayerNorm
    ) -> Tensor:
        frames = len(audio.key)
        with_audio = hidden_states[-frames:]
        with_audio = with_audio + attention.attend(norm(with_audio), audio.key, audio.value)
        if not audio.guided:
            return with_audio
        # Zero audio has zero values, so attention to it is zero and only the output projection's bias remains.
        bias = attention.to_out[0](hidden_states.new_zeros(1, 1, hidden_states.shape[-1]))
        return torch.cat([hidden_states[:frames] + bias, with_audio])


class SpatialTransformer(AudioConditioned):
    """Transformer over the positions of each frame, conditioned on that frame's audio window."""

    def __init__(self, channels: int, heads: int, groups: int, audio_dim: int | None) -> None:
        super().__init__()
        self.norm = FrameGroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, kernel_size=1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, audio_dim)])
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def project_audio(self, audio: Tensor, *, guided: bool) -> AudioKeysValues | None:
        """Keys and values for :meth:`forward`: audio (m, k, audio_dim); None without audio attention."""
        attention = cast(TransformerBlock, self.transformer_blocks[0]).attn2
        return None if attention is None else AudioKeysValues(*attention.project_context(audio), guided)

    def forward(self, hidden: Tensor, audio: AudioKeysValues | None) -> Tensor:
        """Transform each frame.

        hidden (n, channels, h, w), audio from :meth:`project_audio` or None -> the same shape, or 2m frames where the
        audio of m frames is guided
        """
        hidden_states = to_tokens(self.proj_in(self.norm(hidden)))
        for block in self.transformer_blocks:
            hidden_states = block(hidden_states, audio)
        output = self.proj_out(from_tokens(hidden_states, hidden.shape[-2]))
        return repeat_frames(hidden, len(output)) + cast(Tensor, output)
