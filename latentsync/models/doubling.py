"""Nearest-neighbour doubling and a 3x3 convolution at once: 4/9 of the products.

Doubling shows every pixel to the kernel up to four times. What the kernel multiplies by the same pixel is added up
beforehand (Shi et al. 2016, arXiv 1609.07009). Only the order of additions differs from doing both.

That leaves a 4x4 kernel that is moved by two, a transposed convolution, which a CPU does best; or four kernels of 2x2,
one for each pixel of a doubled one, whose results lie between each other, which a GPU does best.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def doubled_kernel(weight: Tensor) -> Tensor:
    """Kernel (out, in, 3, 3) of the convolution -> (in, out, 4, 4) for :func:`double_and_convolve`."""
    flipped = weight.flip(2, 3).transpose(0, 1).to(torch.promote_types(weight.dtype, torch.float32))
    shifted = [F.pad(flipped, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1)]
    return torch.stack(shifted).sum(dim=0).to(weight.dtype)


def double_and_convolve(hidden: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Double and convolve with padding 1: (n, in, h, w), kernel (in, out, 4, 4), bias (out,) -> (n, out, 2h, 2w)."""
    return F.conv_transpose2d(hidden, kernel, bias, stride=2, padding=1)


def phase_kernels(weight: Tensor) -> Tensor:
    """Kernel (out, in, 3, 3) of the convolution -> (4 out, in, 2, 2) for :func:`double_by_phases`."""
    rows = _added_pairs(weight.to(torch.promote_types(weight.dtype, torch.float32)), dim=2)
    kernels = [part for row in rows for part in _added_pairs(row, dim=3)]
    return torch.cat(kernels).to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _added_pairs(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What three taps are to a doubled pixel's first half and to its second one, along ``dim``."""
    before, middle, after = weight.unbind(dim)
    return torch.stack([before, middle + after], dim), torch.stack([before + middle, after], dim)


def double_by_phases(hidden: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Double and convolve with padding 1: (n, in, h, w), kernels (4 out, in, 2, 2), bias (out,) -> (n, out, 2h, 2w)."""
    height, width = hidden.shape[-2:]
    phases = F.conv2d(hidden, kernels, padding=1).permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))
    rows = [
        torch.stack([phases[:, y : y + height, x : x + width, y, x] for x in range(2)], dim=3) for y in range(2)
    ]  # two of (n, h, w, 2, out)
    doubled = torch.stack(rows, dim=2).flatten(1, 2).flatten(2, 3)
    return (doubled + bias).permute(0, 3, 1, 2)


class PhaseUpsampler(nn.Module):
    """Doubling and a convolution of 3x3 with padding 1, for inference.

    Args:
        conv: the convolution that would follow the doubling.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.bias is None:
            raise ValueError("A convolution without bias is not doubled by phases.")
        self.kernels = nn.Parameter(phase_kernels(conv.weight.detach()), requires_grad=False)
        self.bias = conv.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Enlarge: (n, c, h, w) -> (n, out, 2h, 2w)."""
        return double_by_phases(hidden, self.kernels, self.bias)
