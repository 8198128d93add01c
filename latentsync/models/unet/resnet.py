"""Residual block and resampling of the U-Net.

All of them take frames folded into the batch, ``(b f) c h w``, so that convolutions are plain 2-D ones. Memory is
channels-last: then a joint view over frames and the token view of the transformers cost no copy.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import from_tokens, join_channels, to_tokens
from latentsync.models.layers.normed_conv import NormedConv, WindowTokens
from latentsync.models.layers.residual_stream import TokenStream
from latentsync.models.layers.upsample_conv import double_and_convolve, doubled_kernel
from latentsync.models.layers.winograd import spread_kernel

_FEWEST_CHANNELS = 640  # with fewer, spreading costs more than the products that it saves


def to_channels_last(module: nn.Module) -> None:
    """Store every convolution's weight channels-last, in place."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions with the time embedding added between them, plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameGroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = FrameGroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.time_place: slice | None = None
        self.matrices1: Tensor | None
        self.matrices2: Tensor | None
        self.register_buffer("matrices1", None, persistent=False)
        self.register_buffer("matrices2", None, persistent=False)

    def pack(self) -> None:
        """Keep the kernels that pay as matrices, for networks that are not trained any more."""
        for name, conv in (("matrices1", self.conv1), ("matrices2", self.conv2)):
            if min(conv.in_channels, conv.out_channels) >= _FEWEST_CHANNELS:
                setattr(self, name, spread_kernel(conv.weight.detach()))

    def forward(self, hidden: Tensor, time_emb: Tensor, frames: int) -> Tensor:
        """Transform a window.

        hidden ((b f), in_channels, h, w), time_emb (b or 1, time_dim) already through SiLU, or, with a ``time_place``,
        what the projections of many blocks made of it -> ((b f), out_channels, h, w)
        """
        return from_tokens(self.open([hidden], time_emb, frames).read(), hidden.shape[-2])

    def open(self, parts: Sequence[Tensor], time_emb: Tensor, frames: int) -> TokenStream:
        """As :meth:`forward`, into a stream of (b f) frames that further layers may add to.

        parts: pictures whose channels follow each other
        """
        time = self.time_emb_proj(time_emb) if self.time_place is None else time_emb[:, self.time_place]
        if kernels.adds_in_place(parts[0]):
            return self._open_in_place(parts, time, frames)
        hidden = parts[0] if len(parts) == 1 else join_channels(*parts)
        if len(time) > 1:
            time = time.repeat_interleave(frames, dim=0)
        inner = self.conv1(F.silu(self.norm1(hidden, frames)))
        inner = self.conv2(F.silu(self.norm2(inner + time[:, :, None, None], frames)))
        return TokenStream(to_tokens((hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)) + inner))

    def _open_in_place(self, parts: Sequence[Tensor], time: Tensor, frames: int) -> TokenStream:
        tokens, height = [to_tokens(part) for part in parts], parts[0].shape[-2]
        first = NormedConv(self.norm1, self.conv1, self.matrices1)
        second = NormedConv(self.norm2, self.conv2, self.matrices2)
        inner = first(WindowTokens(tokens, height, frames))
        window = WindowTokens([inner], height, frames, time + cast(Tensor, self.conv1.bias))
        if self.conv_shortcut is None:
            return TokenStream(second(window, tokens[0]), self.conv2.bias)
        stream = TokenStream(second(window), self.conv2.bias)
        stream.add_parts(self.conv_shortcut, tokens)
        return stream


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shrink: (n, c, h, w) -> (n, c, ceil(h/2), ceil(w/2))."""
        output: Tensor = self.conv(hidden)
        return output


class Upsample(nn.Module):
    """Enlarge by nearest neighbours to the size of the next skip tensor, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.packed_kernel: Tensor | None
        self.register_buffer("packed_kernel", None, persistent=False)

    def pack(self) -> None:
        """Keep the kernel that also doubles, for networks that are not trained any more."""
        self.packed_kernel = doubled_kernel(self.conv.weight.detach()).contiguous(memory_format=torch.channels_last)

    def forward(self, hidden: Tensor, size: torch.Size) -> Tensor:
        """Enlarge: (n, c, h, w) -> (n, c, *size)."""
        if (2 * hidden.shape[-2], 2 * hidden.shape[-1]) == tuple(size) and not torch.is_grad_enabled():
            if self.packed_kernel is not None:
                return double_and_convolve(hidden, self.packed_kernel, self.conv.bias)
            if hidden.device.type == "cpu":
                return double_and_convolve(hidden, doubled_kernel(self.conv.weight), self.conv.bias)
        output: Tensor = self.conv(F.interpolate(hidden, size=size, mode="nearest"))
        return output
