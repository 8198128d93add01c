"""The U-Net's input layers as few products of shapes that tensor cores run well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.fused.resnet import FusedResnetBlock
from latentsync.backends.fused.weights import FixedConv, FixedLinear
from latentsync.models.unet.unet import TimeEmbedding, sinusoids

_CHANNEL_ALIGNMENT = 16  # of tensor cores


class PaddedConv(FixedConv):
    """A 3x3 convolution with padding 1 whose input channels are padded with zeros to a multiple of 16."""

    padded_weight: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        padding = -conv.in_channels % _CHANNEL_ALIGNMENT
        padded = F.pad(conv.weight.detach(), (0, 0, 0, 0, 0, padding)).contiguous(memory_format=torch.channels_last)
        self.register_buffer("padded_weight", padded, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve: (n, in, h, w) -> (n, out, h, w)."""
        padding = self.padded_weight.shape[1] - images.shape[1]
        padded = F.pad(images, (0, 0, 0, 0, 0, padding)).contiguous(memory_format=torch.channels_last)
        return F.conv2d(padded, self.padded_weight, self.bias, padding=1)


class PackedTimeEmbedding(nn.Module):
    """`TimeEmbedding` followed by the time projections of all residual blocks as one product.

    Args:
        plain: the module it replaces.
        blocks: each is given its `FusedResnetBlock.time_slice` of the result.
    """

    packed_weight: Tensor
    packed_bias: Tensor

    def __init__(self, plain: TimeEmbedding, blocks: Sequence[FusedResnetBlock]) -> None:
        super().__init__()
        self.width = plain.width
        self.linear_1, self.linear_2 = FixedLinear(plain.linear_1), FixedLinear(plain.linear_2)
        layers = [block.time_emb_proj for block in blocks]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        bias = torch.cat([layer.bias.detach() for layer in layers if layer.bias is not None])
        self.register_buffer("packed_weight", weight, persistent=False)
        self.register_buffer("packed_bias", bias, persistent=False)
        start = 0
        for block, layer in zip(blocks, layers, strict=True):
            block.time_slice = slice(start, start + len(layer.weight))
            start += len(layer.weight)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Embed and project: (b,) -> (b, channels of all blocks)."""
        waves = sinusoids(timesteps, self.width).to(self.linear_1.weight.dtype)
        time_emb = F.silu(self.linear_2(F.silu(self.linear_1(waves))))
        return F.linear(time_emb, self.packed_weight, self.packed_bias)
