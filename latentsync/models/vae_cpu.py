"""The autoencoder's layers arranged for inference on a CPU: the same function in fewer passes over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from latentsync.models.doubling import double_and_convolve, doubled_kernel

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class LeanResnet(nn.Module):
    """A residual block of the autoencoder that writes into what it has already made."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, hidden: Tensor, temb: None = None) -> Tensor:
        """Transform: (n, in_channels, h, w) -> (n, out_channels, h, w); temb holds the place of a time embedding."""
        shortcut = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        hidden = self.conv1(F.silu(self.norm1(hidden), inplace=True))
        output: Tensor = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        return output.add_(shortcut)


class DoublingConv(nn.Module):
    """The autoencoder's upsampler: doubling and convolution at once."""

    def __init__(self, upsampler: Upsample2D) -> None:
        super().__init__()
        weight, self.bias = upsampler.conv.weight, upsampler.conv.bias
        self.kernel = nn.Parameter(doubled_kernel(weight), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Enlarge: (n, c, h, w) -> (n, c, 2h, 2w)."""
        return double_and_convolve(hidden, self.kernel, self.bias)


def arrange_for_cpu(vae: AutoencoderKL) -> None:
    """Replace layers of a loaded autoencoder in place, for inference only: its state dict no longer fits its config.

    Results differ from before by rounding.
    """
    for parent in list(vae.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResnetBlock2D):
                setattr(parent, name, LeanResnet(child))
            elif isinstance(child, Upsample2D):
                setattr(parent, name, DoublingConv(child))
