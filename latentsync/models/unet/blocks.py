"""Levels of the U-Net: each a list of layers (residual block, transformer, motion module) and a resampler."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.layers.layout import from_tokens, repeat_frames
from latentsync.models.unet.motion_module import MotionModule
from latentsync.models.unet.resnet import Downsample, ResnetBlock, Upsample
from latentsync.models.unet.spatial_transformer import HeardAudio, SpatialTransformer
from latentsync.models.unet.spec import UNetSpec


class Condition(NamedTuple):
    """What every layer is told besides the picture."""

    time_emb: Tensor
    """(b, 4 * first width), already through SiLU, or what the blocks' projections made of it; one row may serve all."""
    audio: Sequence[HeardAudio | None]
    """For every transformer of the network in order; None leaves its audio attention out."""
    frames: int
    """f, the frames of a window."""


def build_resnet(spec: UNetSpec, in_channels: int, out_channels: int) -> ResnetBlock:
    """Build one residual block of the given widths."""
    time_dim = 4 * spec.block_out_channels[0]
    return ResnetBlock(in_channels, out_channels, time_dim, spec.norm_num_groups, spec.norm_eps)


def build_transformer(spec: UNetSpec, channels: int) -> SpatialTransformer:
    """Build one spatial transformer of the given width."""
    audio_dim = spec.cross_attention_dim if spec.add_audio_layer else None
    return SpatialTransformer(channels, spec.attention_head_dim, spec.norm_num_groups, audio_dim)


def build_motion_module(spec: UNetSpec, channels: int) -> MotionModule:
    """Build one motion module of the given width."""
    heads, blocks = spec.motion_num_attention_heads, spec.motion_num_transformer_block
    return MotionModule(channels, heads, spec.motion_max_len, blocks)


class Level(nn.Module):
    """The layers of one level; a layer is a residual block, then a transformer, then a motion module, if present."""

    def __init__(self, spec: UNetSpec, level: int, in_channels: list[int], *, decoder: bool) -> None:
        super().__init__()
        channels = spec.block_out_channels[level]
        count = range(len(in_channels))
        self.gradient_checkpointing = spec.gradient_checkpointing
        self.resnets = nn.ModuleList([build_resnet(spec, width, channels) for width in in_channels])
        self.attentions: nn.ModuleList | None = None
        if spec.attends(level, decoder=decoder):
            self.attentions = nn.ModuleList([build_transformer(spec, channels) for _ in count])
        self.motion_modules: nn.ModuleList | None = None
        if spec.motion_at(level, decoder=decoder):
            self.motion_modules = nn.ModuleList([build_motion_module(spec, channels) for _ in count])

    def layer(self, index: int, parts: Sequence[Tensor], condition: Condition) -> Tensor:
        """Run one layer.

        parts ((b f), c, h, w) whose channels follow each other, in_channels[index] in all -> ((b f), channels, h, w)
        """
        if self.gradient_checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(self._layer, index, parts, condition, use_reentrant=False)
            return output
        return self._layer(index, parts, condition)

    def _layer(self, index: int, parts: Sequence[Tensor], condition: Condition) -> Tensor:
        height = parts[0].shape[-2]
        stream = cast(ResnetBlock, self.resnets[index]).open(parts, condition.time_emb, condition.frames)
        if self.attentions is not None:
            transformer = cast(SpatialTransformer, self.attentions[index])
            transformer(stream, height, condition.audio[transformer.place])
        if self.motion_modules is not None:
            self.motion_modules[index](stream, height, condition.frames)
        return from_tokens(stream.read(), height)


class DownLevel(Level):
    """A level on the way down; all but the coarsest end in a downsampler."""

    def __init__(self, spec: UNetSpec, level: int) -> None:
        channels = spec.block_out_channels
        first = channels[max(level - 1, 0)]
        super().__init__(spec, level, [first] + [channels[level]] * (spec.layers_per_block - 1), decoder=False)
        is_coarsest = level == len(channels) - 1
        self.downsamplers = None if is_coarsest else nn.ModuleList([Downsample(channels[level])])

    def forward(self, hidden: Tensor, condition: Condition) -> list[Tensor]:
        """Run the level.

        hidden ((b f), c, h, w) -> output of every layer and of the downsampler, in order; the last one goes on
        """
        outputs = []
        for index in range(len(self.resnets)):
            hidden = self.layer(index, [hidden], condition)
            outputs.append(hidden)
        if self.downsamplers is not None:
            outputs.append(self.downsamplers[0](hidden))
        return outputs


class UpLevel(Level):
    """A level on the way up; all but the finest end in an upsampler."""

    def __init__(self, spec: UNetSpec, level: int, in_channels: list[int]) -> None:
        super().__init__(spec, level, in_channels, decoder=True)
        self.upsamplers = None if level == 0 else nn.ModuleList([Upsample(spec.block_out_channels[level])])

    def forward(self, hidden: Tensor, skips: list[Tensor], condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the level, taking its skips off the end of the list.

        hidden ((b f), c, h, w) -> output ((b f), channels, H, W) in the size of the next skip, and what came into the
        last layer ((b f), channels, h, w)
        """
        for index in range(len(self.resnets) - 1):
            hidden = self.layer(index, _beside(hidden, skips.pop()), condition)
        before_last = hidden
        hidden = self.last_layer(hidden, skips.pop(), condition)
        if self.upsamplers is not None:
            hidden = self.upsamplers[0](hidden, skips[-1].shape[-2:])
        return hidden, before_last

    def last_layer(self, hidden: Tensor, skip: Tensor, condition: Condition) -> Tensor:
        """Run the last layer alone: ((b f), channels, h, w), skip ((b f), c, h, w) -> ((b f), channels, h, w)."""
        return self.layer(len(self.resnets) - 1, _beside(hidden, skip), condition)


def _beside(hidden: Tensor, skip: Tensor) -> list[Tensor]:
    """Both, of as many frames: a skip from before frames with and without audio parted serves both."""
    return [hidden, repeat_frames(skip, len(hidden))]


class MidLevel(nn.Module):
    """The bottom of the U: residual block, transformer, (motion module,) residual block."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        channels = spec.block_out_channels[-1]
        self.attentions = nn.ModuleList([build_transformer(spec, channels)])
        self.resnets = nn.ModuleList([build_resnet(spec, channels, channels) for _ in range(2)])
        self.motion_modules: nn.ModuleList | None = None
        if spec.use_motion_module and spec.motion_module_mid_block:
            self.motion_modules = nn.ModuleList([build_motion_module(spec, channels)])

    def forward(self, hidden: Tensor, condition: Condition) -> Tensor:
        """Transform: ((b f), c, h, w) -> the same shape."""
        height = hidden.shape[-2]
        stream = cast(ResnetBlock, self.resnets[0]).open([hidden], condition.time_emb, condition.frames)
        transformer = cast(SpatialTransformer, self.attentions[0])
        transformer(stream, height, condition.audio[transformer.place])
        if self.motion_modules is not None:
            self.motion_modules[0](stream, height, condition.frames)
        hidden = from_tokens(stream.read(), height)
        output: Tensor = self.resnets[1](hidden, condition.time_emb, condition.frames)
        return output
