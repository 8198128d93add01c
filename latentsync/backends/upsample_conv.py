"""Nearest-neighbor doubling and a 3x3 convolution as one transposed convolution: 4/9 of the products.

After doubling, the kernel covers copies of the same pixel. The weights that meet the same pixel are summed beforehand,
which gives a 4x4 kernel of stride 2 (Shi et al. 2016, arXiv 1609.07009). Only the order of additions differs.
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


class DoublingConv(nn.Module):
    """Doubling and a convolution of 3x3 with padding 1, for inference.

    Args:
        conv: the convolution that would follow the doubling.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel = nn.Parameter(doubled_kernel(conv.weight.detach()), requires_grad=False)
        self.bias = conv.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Enlarge: (n, c, h, w) -> (n, out, 2h, 2w)."""
        return double_and_convolve(hidden, self.kernel, self.bias)
