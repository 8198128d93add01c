"""Replacing the modules of a plain U-Net by fused ones."""

from __future__ import annotations

from typing import cast

from torch import nn

from latentsync.backends.adapters import merge_adapters, require_plain
from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.backends.fused.input_stem import PackedTimeEmbedding, PaddedConv
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.levels import FusedDownLevel, FusedMidLevel, FusedUpLevel
from latentsync.backends.fused.resnet import FusedResnetBlock
from latentsync.backends.fused.weights import fix_remaining
from latentsync.models.unet.blocks import DownLevel, UpLevel
from latentsync.models.unet.unet import UNet3DConditionModel


def fuse_unet(unet: UNet3DConditionModel, layout: FusedLayout) -> None:
    """Replace the network's levels, input and output layers by fused ones, in place and for inference only.

    Parameters are shared and keep their names; adapters are merged into them. Raises ConfigError for adapters that
    cannot be merged and for layers with hooks, which a fused network would bypass.
    """
    merge_adapters(unet)
    require_plain(unet)
    for index, level in enumerate(unet.down_blocks):
        unet.down_blocks[index] = FusedDownLevel(cast(DownLevel, level), layout)
    unet.mid_block = FusedMidLevel(unet.mid_block, layout)
    for index, level in enumerate(unet.up_blocks):
        unet.up_blocks[index] = FusedUpLevel(cast(UpLevel, level), layout)
    unet.conv_norm_out = FusedGroupNorm.of(unet.conv_norm_out)
    if layout.inputs:
        blocks = [module for module in unet.modules() if isinstance(module, FusedResnetBlock)]
        unet.time_embedding = cast(nn.Module, PackedTimeEmbedding(unet.time_embedding, blocks))  # type: ignore[assignment]
        unet.conv_in = PaddedConv(unet.conv_in)  # type: ignore[assignment]
    fix_remaining(unet)
