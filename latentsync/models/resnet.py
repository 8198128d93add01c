"""Residual block, resampling and group norm of the U-Net.

All of them take frames folded into the batch, ``(b f) c h w``, so that convolutions are plain 2-D ones. Memory is
channels-last: then a joint view over frames and the token view of the transformers cost no copy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models import kernels
from latentsync.models.doubling import double_and_convolve, doubled_kernel
from latentsync.models.layout import from_tokens, stored, to_pictures, to_tokens, to_video
from latentsync.models.token_stream import TokenStream

_HALF_TYPES = (torch.float16, torch.bfloat16)


def to_channels_last(module: nn.Module) -> None:
    """Store every convolution's weight channels-last, in place."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class FrameGroupNorm(nn.GroupNorm):
    """Group norm whose statistics can run over several frames of one video jointly."""

    def forward(self, hidden: Tensor, frames: int = 1) -> Tensor:
        """Normalise.

        hidden ((b frames), c, h, w) -> the same shape. Statistics are shared by each run of ``frames`` frames:
        1 = per frame, the window's length = jointly over the window.
        """
        if _counts_passes(hidden):
            return from_tokens(self._by_moments(to_tokens(hidden), frames), hidden.shape[-2])
        video = to_video(hidden, frames)
        return to_pictures(F.group_norm(video, self.num_groups, self.weight, self.bias, self.eps))

    def of_tokens(self, tokens: Tensor, height: int) -> Tensor:
        """Normalise each frame: tokens (n, s, c) of pictures ``height`` positions high -> the same shape."""
        if _counts_passes(tokens):
            return self._by_moments(tokens, 1)
        return to_tokens(self(from_tokens(tokens, height)))

    def _by_moments(self, tokens: Tensor, frames: int) -> Tensor:
        """Same result from two sums in float32 and one multiply-add: ((b frames), s, c) -> the same shape.

        CUDA's own kernel copies channels-last memory to and fro, which took 16 % of the network's time on an H200. And
        it is tokens here since a compiler may lay pictures out anew.
        """
        video = tokens.unflatten(0, (-1, frames))
        axes, width = (1, 2), video.shape[-1] // self.num_groups
        count = video[0, ..., :width].numel()
        # Channel by channel first: neighbours in memory are then summed side by side.
        sums = video.sum(dim=axes, dtype=torch.float32)
        squares = torch.linalg.vector_norm(video, dim=axes, dtype=torch.float32).square()
        mean, square = (part.unflatten(1, (self.num_groups, -1)).sum(-1) / count for part in (sums, squares))
        scale = torch.rsqrt((square - mean.square()).clamp_min(0) + self.eps)
        # What is rounded must be small: first the mean as half precision has it, then what that leaves of it.
        centre = mean.to(tokens.dtype)
        shift = (centre.float() - mean) * scale
        centre, scale, shift = (part.repeat_interleave(width, dim=1) for part in (centre, scale, shift))
        scale, shift = scale * self.weight, shift * self.weight + self.bias
        centre, scale, shift = (stored(part.to(tokens.dtype))[:, None, None] for part in (centre, scale, shift))
        return torch.addcmul(shift, video - centre, scale).flatten(0, 1)


def _counts_passes(tensor: Tensor) -> bool:
    """Whether passes over memory are what a norm costs here; and there are no gradients to be had by moments."""
    return tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()


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

    def forward(self, hidden: Tensor, time_emb: Tensor, frames: int) -> Tensor:
        """Transform a window.

        hidden ((b f), in_channels, h, w), time_emb (b or 1, time_dim) already through SiLU
        -> ((b f), out_channels, h, w)
        """
        return from_tokens(self.open(hidden, time_emb, frames).read(), hidden.shape[-2])

    def open(self, hidden: Tensor, time_emb: Tensor, frames: int) -> TokenStream:
        """As :meth:`forward`, into a stream of (b f) frames that further layers may add to."""
        time = self.time_emb_proj(time_emb)
        if len(time) > 1:
            time = time.repeat_interleave(frames, dim=0)
        inner = self.conv1(F.silu(self.norm1(hidden, frames)))
        inner = F.silu(self.norm2(inner + time[:, :, None, None], frames))
        if self.conv_shortcut is None:
            return TokenStream(to_tokens(hidden + self.conv2(inner)))
        if not kernels.adds_in_place(hidden):
            return TokenStream(to_tokens(self.conv_shortcut(hidden) + self.conv2(inner)))
        stream = TokenStream(to_tokens(F.conv2d(inner, self.conv2.weight, padding=1)), self.conv2.bias)
        stream.add(self.conv_shortcut, to_tokens(hidden))
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
