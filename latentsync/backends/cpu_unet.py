"""The U-Net's layers rearranged for inference on a CPU: the same function with fewer products and memory passes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.adapters import merge_adapters, require_plain
from latentsync.backends.fused.attention import geglu_by_halves
from latentsync.backends.fused.weights import FixedConv, LayerWeights
from latentsync.backends.upsample_conv import double_and_convolve, doubled_kernel
from latentsync.models.layers.attention import GEGLU
from latentsync.models.layers.layout import from_tokens, to_tokens
from latentsync.models.unet.resnet import Upsample
from latentsync.models.unet.spatial_transformer import SpatialTransformer
from latentsync.models.unet.unet import UNet3DConditionModel


class SplitGEGLU(nn.Module):
    """`GEGLU` as two products, see `geglu_by_halves`."""

    def __init__(self, plain: GEGLU) -> None:
        super().__init__()
        self.proj = LayerWeights(plain.proj)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """See `GEGLU.forward`."""
        assert self.proj.bias is not None
        return geglu_by_halves(hidden_states, self.proj.weight, self.proj.bias)


class PointwiseProjection(LayerWeights):
    """A 1x1 convolution as one matrix product; on channels-last images its reshapes are views."""

    def forward(self, images: Tensor) -> Tensor:
        """Project every position: (n, in, h, w) -> (n, out, h, w)."""
        tokens = F.linear(to_tokens(images), self.weight.flatten(1), self.bias)
        return from_tokens(tokens, images.shape[-2])


class TransposedUpsample(nn.Module):
    """`Upsample` as one transposed convolution where the size doubles exactly.

    The larger kernel is computed at every call, which costs little and keeps no second copy of the weights.
    """

    def __init__(self, plain: Upsample) -> None:
        super().__init__()
        self.conv = FixedConv(plain.conv)

    def forward(self, hidden: Tensor, size: torch.Size) -> Tensor:
        """See `Upsample.forward`."""
        if (2 * hidden.shape[-2], 2 * hidden.shape[-1]) == tuple(size):
            return double_and_convolve(hidden, doubled_kernel(self.conv.weight), self.conv.bias)
        output: Tensor = self.conv(F.interpolate(hidden, size=size, mode="nearest"))
        return output


def optimize_unet_for_cpu(unet: UNet3DConditionModel) -> None:
    """Replace layers of a loaded network in place, for inference only; results differ by rounding.

    Parameters are shared and keep their names; adapters are merged into them. Raises ConfigError for adapters that
    cannot be merged and for layers with hooks.
    """
    merge_adapters(unet)
    require_plain(unet)
    for parent in list(unet.modules()):
        if isinstance(parent, SpatialTransformer):
            parent.proj_in = PointwiseProjection(parent.proj_in)  # type: ignore[assignment]
            parent.proj_out = PointwiseProjection(parent.proj_out)  # type: ignore[assignment]
        for name, child in list(parent.named_children()):
            if isinstance(child, GEGLU):
                setattr(parent, name, SplitGEGLU(child))
            elif isinstance(child, Upsample):
                setattr(parent, name, TransposedUpsample(child))
