"""Residual block and upsampling with packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.normed_conv import NormedConv, WindowTokens
from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.weights import FixedConv, FixedLinear
from latentsync.backends.fused.winograd import transform_kernel
from latentsync.backends.upsample_conv import double_and_convolve, doubled_kernel
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import join_channels, to_tokens
from latentsync.models.unet.resnet import ResnetBlock, Upsample

MIN_WINOGRAD_CHANNELS = 640  # with fewer, transforming the input costs more than the saved products


class FusedResnetBlock(nn.Module):
    """`ResnetBlock` that opens a residual stream for the layers after it.

    Attributes:
        time_slice: where this block's part of the packed time projections lies; None projects the time embedding.
    """

    matrices1: Tensor | None
    matrices2: Tensor | None

    def __init__(self, plain: ResnetBlock, layout: FusedLayout) -> None:
        super().__init__()
        self.norm1, self.norm2 = FusedGroupNorm.of(plain.norm1), FusedGroupNorm.of(plain.norm2)
        self.conv1, self.conv2 = FixedConv(plain.conv1), FixedConv(plain.conv2)
        self.time_emb_proj = FixedLinear(plain.time_emb_proj)
        self.conv_shortcut = None if plain.conv_shortcut is None else FixedConv(plain.conv_shortcut)
        self.time_slice: slice | None = None
        for name, conv in (("matrices1", plain.conv1), ("matrices2", plain.conv2)):
            wide = min(conv.in_channels, conv.out_channels) >= MIN_WINOGRAD_CHANNELS
            matrices = transform_kernel(conv.weight.detach()) if layout.winograd and wide else None
            self.register_buffer(name, matrices, persistent=False)

    def forward(self, parts: Sequence[Tensor], time_emb: Tensor, frames: int) -> ResidualStream:
        """Transform windows into a stream of (b frames) frames.

        parts ((b frames), c, h, w) whose channels follow each other, in_channels in all; time_emb (b or 1, time_dim)
        or, with a ``time_slice``, the packed projections of it
        """
        if self.time_slice is None:
            time = self.time_emb_proj(F.silu(time_emb))
        else:
            time = time_emb[:, self.time_slice]
        if kernels.adds_in_place(parts[0]):
            return self._in_place(parts, time, frames)
        hidden = parts[0] if len(parts) == 1 else join_channels(*parts)
        if len(time) > 1:
            time = time.repeat_interleave(frames, dim=0)
        inner = self.conv1(F.silu(self.norm1(hidden, frames)))
        inner = self.conv2(F.silu(self.norm2(inner + time[:, :, None, None], frames)))
        shortcut = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        return ResidualStream(to_tokens(shortcut + inner))

    def _in_place(self, parts: Sequence[Tensor], time: Tensor, frames: int) -> ResidualStream:
        tokens, height = [to_tokens(part) for part in parts], parts[0].shape[-2]
        first = NormedConv(self.norm1, self.conv1, self.matrices1)
        second = NormedConv(self.norm2, self.conv2, self.matrices2)
        inner = first(WindowTokens(tokens, height, frames))
        window = WindowTokens([inner], height, frames, time + cast(Tensor, self.conv1.bias))
        if self.conv_shortcut is None:
            return ResidualStream(second(window, tokens[0]), self.conv2.bias)
        stream = ResidualStream(second(window), self.conv2.bias)
        stream.add_parts(self.conv_shortcut, tokens)
        return stream


class FusedUpsample(nn.Module):
    """`Upsample` that doubles and convolves at once where the size allows it.

    Args:
        plain: the module it replaces.
        packed: keep the kernel for that; otherwise the two steps are run one after the other.
    """

    packed_kernel: Tensor | None

    def __init__(self, plain: Upsample, *, packed: bool) -> None:
        super().__init__()
        self.conv = FixedConv(plain.conv)
        kernel = doubled_kernel(plain.conv.weight.detach()) if packed else None
        kernel = None if kernel is None else kernel.contiguous(memory_format=torch.channels_last)
        self.register_buffer("packed_kernel", kernel, persistent=False)

    def forward(self, hidden: Tensor, size: torch.Size) -> Tensor:
        """See `Upsample.forward`."""
        if self.packed_kernel is not None and (2 * hidden.shape[-2], 2 * hidden.shape[-1]) == tuple(size):
            return double_and_convolve(hidden, self.packed_kernel, self.conv.bias)
        output: Tensor = self.conv(F.interpolate(hidden, size=size, mode="nearest"))
        return output
