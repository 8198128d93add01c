"""Residual block and resampling of the U-Net.

All of them take frames folded into the batch, ``(b f) c h w``, so that convolutions are plain 2-D ones. Memory is
channels-last: then the video view of the norms and the token view of the transformers cost no copy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layers.frame_norm import FrameGroupNorm


def to_channels_last(module: nn.Module) -> None:
    """Store every convolution's weight channels-last, in place."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class ResnetBlock(nn.Module):
    """Two normalized 3x3 convolutions with the time embedding added between them, plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameGroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = FrameGroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, hidden: Tensor, time_emb: Tensor, frames: int) -> Tensor:
        """Transform windows.

        hidden ((b frames), in_channels, h, w), time_emb (b or 1, time_dim) -> ((b frames), out_channels, h, w)
        """
        shortcut = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        time = self.time_emb_proj(F.silu(time_emb))
        if len(time) > 1:
            time = time.repeat_interleave(frames, dim=0)
        hidden = self.conv1(F.silu(self.norm1(hidden, frames)))
        hidden = self.conv2(F.silu(self.norm2(hidden + time[:, :, None, None], frames)))
        output: Tensor = shortcut + hidden
        return output


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
    """Nearest-neighbor upsampling to the size of the next skip tensor, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, hidden: Tensor, size: torch.Size) -> Tensor:
        """Enlarge: (n, c, h, w) -> (n, c, *size)."""
        output: Tensor = self.conv(F.interpolate(hidden, size=size, mode="nearest"))
        return output
