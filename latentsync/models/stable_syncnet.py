"""StableSyncNet: embeds a mouth window and a speech window so that their cosine measures their agreement."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.errors import ConfigError
from latentsync.models.layers.attention import Attention, FeedForward
from latentsync.models.layers.layout import from_tokens, to_tokens

_GROUPS = 32
_EPS = 1e-6
_HEADS = 8
Factor = int | tuple[int, int]


@dataclass(frozen=True)
class SyncNetEncoderSpec:
    """Sizes of one encoder. Raises ConfigError when the lists do not fit each other."""

    in_channels: int
    """Channels of the input: frames * 3 (or * 4 for latents), or 1 for a mel spectrogram."""
    block_out_channels: tuple[int, ...]
    """Width of each block."""
    downsample_factors: tuple[Factor, ...]
    """Shrinking of each block, as one number or (height, width); 1 = none."""
    attn_blocks: tuple[int, ...] = ()
    """1 where a block is followed by attention; empty = nowhere."""
    dropout: float = 0.0
    """Dropout inside the residual blocks (training only)."""

    def __post_init__(self) -> None:
        if not self.attn_blocks:
            object.__setattr__(self, "attn_blocks", (0,) * len(self.block_out_channels))
        lengths = {len(self.block_out_channels), len(self.downsample_factors), len(self.attn_blocks)}
        if len(lengths) != 1 or 0 in lengths:
            raise ConfigError(
                "A SyncNet encoder needs block_out_channels, downsample_factors and attn_blocks of one length, got "
                f"{len(self.block_out_channels)}, {len(self.downsample_factors)} and {len(self.attn_blocks)}."
            )
        odd = [width for width in self.block_out_channels if width % _GROUPS]
        if odd:
            raise ConfigError(f"SyncNet widths {odd} do not work; expected multiples of {_GROUPS}.")


@dataclass(frozen=True)
class StableSyncNetSpec:
    """Sizes of both encoders; their last widths must agree."""

    visual_encoder: SyncNetEncoderSpec
    audio_encoder: SyncNetEncoderSpec


class SyncNetResnetBlock(nn.Module):
    """Residual block, then (unless the factor is 1) a strided convolution on a zero-padded picture."""

    def __init__(self, in_channels: int, out_channels: int, factor: Factor, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, in_channels, eps=_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, out_channels, eps=_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        stride = (factor, factor) if isinstance(factor, int) else factor
        # left, right, top, bottom: an axis that keeps its size is padded on both sides, one that shrinks at its end.
        self.pad = (int(stride[1] == 1), 1, int(stride[0] == 1), 1)
        self.downsample_conv = None
        if stride != (1, 1):
            self.downsample_conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform and shrink: (b, in_channels, h, w) -> (b, out_channels, h/factor, w/factor), rounded up."""
        shortcut = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        hidden = self.conv1(F.silu(self.norm1(hidden)))
        hidden = shortcut + self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        if self.downsample_conv is None:
            return hidden
        output: Tensor = self.downsample_conv(F.pad(hidden, self.pad))
        return output


class SyncNetAttentionBlock(nn.Module):
    """Self-attention over positions and a feed-forward between two 1x1 convolutions, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels, eps=_EPS)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.conv_in = nn.Conv2d(channels, channels, kernel_size=1)
        self.conv_out = nn.Conv2d(channels, channels, kernel_size=1)
        self.attn = Attention(channels, _HEADS, qkv_bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (b, c, h, w) -> (b, c, h, w)."""
        hidden_states = to_tokens(self.conv_in(self.norm1(hidden)))
        hidden_states = hidden_states + self.attn(self.norm2(hidden_states))
        hidden_states = hidden_states + self.ff(self.norm3(hidden_states))
        output: Tensor = hidden + self.conv_out(from_tokens(hidden_states, hidden.shape[-2]))
        return output


class SyncNetEncoder(nn.Module):
    """Convolutional encoder of one picture or spectrogram into one vector."""

    def __init__(self, spec: SyncNetEncoderSpec) -> None:
        super().__init__()
        width = spec.block_out_channels[0]
        self.gradient_checkpointing = False
        self.conv_in = nn.Conv2d(spec.in_channels, width, kernel_size=3, padding=1)
        # Residual and attention blocks are numbered in one list, as published files have them.
        self.down_blocks = nn.ModuleList()
        plan = zip(spec.block_out_channels, spec.downsample_factors, spec.attn_blocks, strict=True)
        for channels, factor, has_attention in plan:
            self.down_blocks.append(SyncNetResnetBlock(width, channels, factor, spec.dropout))
            if has_attention:
                self.down_blocks.append(SyncNetAttentionBlock(channels))
            width = channels
        self.norm_out = nn.GroupNorm(_GROUPS, width, eps=_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        """Embed: (b, in_channels, h, w) -> (b, d), not negative, of length 1."""
        hidden = self.conv_in(hidden)
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for block in self.down_blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False) if recompute else block(hidden)
        return F.normalize(F.relu(self.norm_out(hidden)).flatten(1), dim=1)


class StableSyncNet(nn.Module):
    """Two encoders whose embeddings' cosine, in [0, 1], says how well a mouth window and a speech window agree."""

    def __init__(self, spec: StableSyncNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.audio_encoder = SyncNetEncoder(spec.audio_encoder)
        self.visual_encoder = SyncNetEncoder(spec.visual_encoder)

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each block's activations in the backward pass (less memory, about a third more time)."""
        self.audio_encoder.gradient_checkpointing = enabled
        self.visual_encoder.gradient_checkpointing = enabled

    def forward(self, image: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both sides.

        image (b, f * 3, h, w): frames stacked on channels as (frame, rgb) in [-1, 1], or latents (b, f * 4, h, w);
        audio (b, 1, 80, mel columns) -> vision_embeds (b, d), audio_embeds (b, d), both of length 1
        """
        return self.visual_encoder(image), self.audio_encoder(audio)


def stack_frames(images: Tensor) -> Tensor:
    """Put frames on channels as StableSyncNet takes them: (b, c, f, h, w) -> (b, f * c, h, w)."""
    return images.transpose(1, 2).flatten(1, 2)


def cosine(vision_embeds: Tensor, audio_embeds: Tensor) -> Tensor:
    """Agreement of unit vectors: (b, d), (b, d) -> (b,) in [0, 1]; rounding above 1 is cut off."""
    # Not torch.linalg.vecdot, which mixed precision would compute in half precision.
    return (vision_embeds.float() * audio_embeds.float()).sum(dim=-1).clamp(0.0, 1.0)
