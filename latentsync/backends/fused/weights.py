"""Weights of plain layers held under their published names.

They are no `nn.Linear` and no `nn.Conv2d`: an adapter library finds nothing to wrap in a prepared network and refuses,
where wrapping a layer that fused code bypasses would silently do nothing.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class LayerWeights(nn.Module):
    """Weight and bias of a linear layer or a convolution, shared with it, for code that does the product itself."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.weight = cast(nn.Parameter, layer.weight)
        self.register_parameter("bias", cast(nn.Parameter | None, layer.bias))


class FixedLinear(LayerWeights):
    """A linear layer for inference."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Project: (..., in) -> (..., out)."""
        return F.linear(inputs, self.weight, self.bias)


class FixedConv(LayerWeights):
    """A convolution for inference, with the stride and padding of the original."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, images: Tensor) -> Tensor:
        """Convolve: (n, in, h, w) -> (n, out, h', w')."""
        return F.conv2d(images, self.weight, self.bias, self.stride, self.padding)


def fix_remaining(network: nn.Module) -> None:
    """Replace every linear layer and convolution that is still a plain one, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, FixedLinear(child))
            elif isinstance(child, nn.Conv2d):
                setattr(parent, name, FixedConv(child))
