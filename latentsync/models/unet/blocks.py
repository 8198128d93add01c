"""Levels of the U-Net: each a list of layers (residual block, transformer, motion module) and a resampler."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.layers.layout import join_channels, repeat_frames
from latentsync.models.unet.motion_module import MotionModule
from latentsync.models.unet.resnet import Downsample, ResnetBlock, Upsample
from latentsync.models.unet.spatial_transformer import AudioConditioned, AudioKeysValues, SpatialTransformer
from latentsync.models.unet.spec import UNetSpec


class Condition(NamedTuple):
    """Inputs of every layer besides the hidden state."""

    time_emb: Tensor
    """(b, 4 * first width), or one row shared by the batch."""
    audio: Sequence[AudioKeysValues | None]
    """For every transformer of the network in order; None skips its audio attention."""
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

    def layer(self, index: int, hidden: Tensor, skip: Tensor | None, condition: Condition) -> Tensor:
        """Run one layer on a hidden state and, in the decoder, a skip tensor whose channels are appended.

        hidden ((b f), c, h, w), skip ((b f), d, h, w), c + d = in_channels[index] -> ((b f), channels, h, w)
        """
        if self.gradient_checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(self._layer, index, hidden, skip, condition, use_reentrant=False)
            return output
        return self._layer(index, hidden, skip, condition)

    def _layer(self, index: int, hidden: Tensor, skip: Tensor | None, condition: Condition) -> Tensor:
        if skip is not None:
            # A skip from before a guided batch was doubled serves both halves.
            hidden = join_channels(hidden, repeat_frames(skip, len(hidden)))
        hidden = self.resnets[index](hidden, condition.time_emb, condition.frames)
        if self.attentions is not None:
            transformer = cast(AudioConditioned, self.attentions[index])
            hidden = transformer(hidden, condition.audio[transformer.index])
        if self.motion_modules is not None:
            hidden = self.motion_modules[index](hidden, condition.frames)
        return hidden


class DownLevel(Level):
    """An encoder level; all but the coarsest end in a downsampler."""

    def __init__(self, spec: UNetSpec, level: int) -> None:
        channels = spec.block_out_channels
        first = channels[max(level - 1, 0)]
        super().__init__(spec, level, [first] + [channels[level]] * (spec.layers_per_block - 1), decoder=False)
        is_coarsest = level == len(channels) - 1
        self.downsamplers = None if is_coarsest else nn.ModuleList([Downsample(channels[level])])

    def forward(self, hidden: Tensor, condition: Condition) -> list[Tensor]:
        """Run the level.

        hidden ((b f), c, h, w) -> the skip tensors: outputs of every layer and of the downsampler, in order
        """
        outputs = []
        for index in range(len(self.resnets)):
            hidden = self.layer(index, hidden, None, condition)
            outputs.append(hidden)
        if self.downsamplers is not None:
            outputs.append(self.downsamplers[0](hidden))
        return outputs


class UpLevel(Level):
    """A decoder level; all but the finest end in an upsampler."""

    def __init__(self, spec: UNetSpec, level: int, in_channels: list[int]) -> None:
        super().__init__(spec, level, in_channels, decoder=True)
        self.upsamplers = None if level == 0 else nn.ModuleList([Upsample(spec.block_out_channels[level])])

    def forward(self, hidden: Tensor, skips: list[Tensor], condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the level, popping its skips off the end of the list.

        hidden ((b f), c, h, w) -> output ((b f), channels, H, W) in the size of the next skip, and the input of
        the last layer ((b f), channels, h, w)
        """
        for index in range(len(self.resnets) - 1):
            hidden = self.layer(index, hidden, skips.pop(), condition)
        last_input = hidden
        hidden = self.last_layer(hidden, skips.pop(), condition)
        if self.upsamplers is not None:
            hidden = self.upsamplers[0](hidden, skips[-1].shape[-2:])
        return hidden, last_input

    def last_layer(self, hidden: Tensor, skip: Tensor, condition: Condition) -> Tensor:
        """Run the last layer alone: ((b f), channels, h, w), skip ((b f), c, h, w) -> ((b f), channels, h, w)."""
        return self.layer(len(self.resnets) - 1, hidden, skip, condition)


class MidLevel(nn.Module):
    """The bottleneck: residual block, transformer, (motion module,) residual block."""

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
        hidden = self.resnets[0](hidden, condition.time_emb, condition.frames)
        transformer = cast(AudioConditioned, self.attentions[0])
        hidden = transformer(hidden, condition.audio[transformer.index])
        if self.motion_modules is not None:
            hidden = self.motion_modules[0](hidden, condition.frames)
        output: Tensor = self.resnets[1](hidden, condition.time_emb, condition.frames)
        return output
