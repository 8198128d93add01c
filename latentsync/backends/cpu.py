"""The autoencoder's layers arranged for inference on a CPU: the same function in fewer passes over memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.upsample_conv import DoublingConv
from latentsync.models.autoencoder import AutoencoderKL, VaeAttention, VaeResnet, VaeUpsample
from latentsync.models.layers.layout import from_tokens, to_tokens

# Group norm in bfloat16 takes the channels by so many; fewer than that, it takes them one by one.
_VECTOR = 32


class NormSilu(nn.Module):
    """Group norm and SiLU."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.in_float32 = norm.weight.dtype == torch.bfloat16 and norm.num_channels < _VECTOR
        if self.in_float32:
            norm.float()

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise and gate: (n, c, h, w) -> the same shape."""
        if not self.in_float32:
            return F.silu(self.norm(hidden), inplace=True)
        return F.silu(self.norm(hidden.float()), inplace=True).to(hidden.dtype)


class LeanResnet(nn.Module):
    """A residual block of the autoencoder that writes into what it has already made."""

    def __init__(self, block: VaeResnet) -> None:
        super().__init__()
        self.gate1, self.conv1 = NormSilu(block.norm1), block.conv1
        self.gate2, self.conv2 = NormSilu(block.norm2), block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (n, in_channels, h, w) -> (n, out_channels, h, w)."""
        shortcut = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        output: Tensor = self.conv2(self.gate2(self.conv1(self.gate1(hidden))))
        return output.add_(shortcut)


class PictureAttention(nn.Module):
    """The autoencoder's attention over a picture's positions, as plain matrix products.

    In bfloat16 they take half the time of the fused attention, which is made for long texts.
    """

    def __init__(self, attention: VaeAttention) -> None:
        super().__init__()
        self.norm, self.to_out = attention.group_norm, attention.to_out[0]
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend with one head: (n, c, h, w) -> the same shape."""
        tokens = to_tokens(self.norm(hidden))
        query, key, value = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
        return hidden + from_tokens(self.to_out(scores.softmax(dim=-1) @ value), hidden.shape[-2])


def arrange_for_cpu(vae: AutoencoderKL) -> None:
    """Replace layers of a loaded autoencoder in place, for inference only: its state dict no longer fits its config.

    Results differ from before by rounding.
    """
    for parent in list(vae.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, VaeResnet):
                setattr(parent, name, LeanResnet(child))
            elif isinstance(child, VaeAttention) and vae.dtype == torch.bfloat16:
                setattr(parent, name, PictureAttention(child))
            elif isinstance(child, VaeUpsample):
                setattr(parent, name, DoublingConv(child.conv))
    for half in (vae.encoder, vae.decoder):
        half.add_module("conv_norm_out", NormSilu(half.conv_norm_out))
        half.add_module("conv_act", nn.Identity())
