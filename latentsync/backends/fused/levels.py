"""Levels of the U-Net whose layers share one residual stream."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.motion_module import FusedMotionModule
from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.resnet import FusedResnetBlock, FusedUpsample
from latentsync.backends.fused.spatial_transformer import FusedSpatialTransformer
from latentsync.models.layers.layout import from_tokens, repeat_frames
from latentsync.models.unet.blocks import Condition, DownLevel, Level, MidLevel, UpLevel
from latentsync.models.unet.motion_module import MotionModule
from latentsync.models.unet.resnet import ResnetBlock, Upsample
from latentsync.models.unet.spatial_transformer import SpatialTransformer


class FusedDownLevel(DownLevel):
    """`DownLevel` with fused layers."""

    def __init__(self, plain: DownLevel, layout: FusedLayout) -> None:
        nn.Module.__init__(self)
        _take_layers(self, plain, layout)
        self.downsamplers = plain.downsamplers

    def layer(self, index: int, hidden: Tensor, skip: Tensor | None, condition: Condition) -> Tensor:
        """See `Level.layer`."""
        return _run_layer(self, index, hidden, skip, condition)


class FusedUpLevel(UpLevel):
    """`UpLevel` with fused layers."""

    def __init__(self, plain: UpLevel, layout: FusedLayout) -> None:
        nn.Module.__init__(self)
        _take_layers(self, plain, layout)
        self.upsamplers: nn.ModuleList | None = None
        if plain.upsamplers is not None:
            upsample = cast(Upsample, plain.upsamplers[0])
            self.upsamplers = nn.ModuleList([FusedUpsample(upsample, packed=layout.upsample)])

    def layer(self, index: int, hidden: Tensor, skip: Tensor | None, condition: Condition) -> Tensor:
        """See `Level.layer`."""
        return _run_layer(self, index, hidden, skip, condition)


class FusedMidLevel(MidLevel):
    """`MidLevel` with fused layers."""

    def __init__(self, plain: MidLevel, layout: FusedLayout) -> None:
        nn.Module.__init__(self)
        _take_layers(self, plain, layout)

    def forward(self, hidden: Tensor, condition: Condition) -> Tensor:
        """See `MidLevel.forward`."""
        hidden = _run_layer(self, 0, hidden, None, condition)
        stream = cast(ResidualStream, self.resnets[1]([hidden], condition.time_emb, condition.frames))
        return from_tokens(stream.read(), hidden.shape[-2])


def _take_layers(fused: Level | MidLevel, plain: Level | MidLevel, layout: FusedLayout) -> None:
    """Give a fused level the layers of a plain one, under their names and in their order."""
    transformers = motion_modules = None
    if plain.attentions is not None:
        each = [cast(SpatialTransformer, transformer) for transformer in plain.attentions]
        transformers = nn.ModuleList([FusedSpatialTransformer(transformer, layout) for transformer in each])
    if plain.motion_modules is not None:
        modules = [cast(MotionModule, module) for module in plain.motion_modules]
        motion_modules = nn.ModuleList([FusedMotionModule(module, layout) for module in modules])
    fused.resnets = nn.ModuleList([FusedResnetBlock(cast(ResnetBlock, block), layout) for block in plain.resnets])
    fused.attentions = transformers  # type: ignore[assignment]  # a MidLevel always has one
    fused.motion_modules = motion_modules


def _run_layer(
    level: Level | MidLevel, index: int, hidden: Tensor, skip: Tensor | None, condition: Condition
) -> Tensor:
    # A skip from before a guided batch was doubled serves both halves.
    parts = [hidden] if skip is None else [hidden, repeat_frames(skip, len(hidden))]
    height = hidden.shape[-2]
    stream = cast(ResidualStream, level.resnets[index](parts, condition.time_emb, condition.frames))
    if level.attentions is not None:
        transformer = cast(FusedSpatialTransformer, level.attentions[index])
        transformer(stream, height, condition.audio[transformer.index])
    if level.motion_modules is not None:
        level.motion_modules[index](stream, height, condition.frames)
    return from_tokens(stream.read(), height)
