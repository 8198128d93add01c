"""Group norm, SiLU and a 3x3 convolution fused, as residual blocks of compiled CUDA networks run them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.backends.fused.frame_norm import FusedGroupNorm, apply_scale_shift
from latentsync.backends.fused.weights import LayerWeights
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import from_tokens, to_tokens


@dataclass(frozen=True)
class WindowTokens:
    """Images of whole windows as tokens.

    Attributes:
        parts: tokens (n, s, c) each, whose channels follow each other.
        height: of the images, in positions.
        frames: per window, so n / frames windows.
        added: (1 or n / frames, all c) still to be added to the tokens of every window.
    """

    parts: list[Tensor]
    height: int
    frames: int
    added: Tensor | None = None


class NormedConv:
    """Half of a residual block: norm, SiLU, convolution without its bias.

    Args:
        norm: the norm.
        conv: the convolution; its bias is not added.
        matrices: its kernel from `latentsync.backends.fused.winograd`, or None.
    """

    def __init__(self, norm: FusedGroupNorm, conv: LayerWeights, matrices: Tensor | None) -> None:
        self._norm, self._conv, self._matrices = norm, conv, matrices

    def __call__(self, window: WindowTokens, residual: Tensor | None = None) -> Tensor:
        """Tokens of the result (n, s, out), the residual (n, s, out) added to them."""
        vectors = kernels.group_moments(window.parts, window.added, self._norm, window.frames)
        if vectors is None:
            normed = self._norm(from_tokens(_concat(window), window.height), window.frames)
        else:
            if self._matrices is not None:
                fused = kernels.convolve_normed(window.parts, vectors, self._matrices, window.height, residual)
                if fused is not None:
                    return fused
            normed = from_tokens(_normalized(window, vectors), window.height)
        tokens = to_tokens(F.conv2d(F.silu(normed), self._conv.weight, padding=1))
        return tokens if residual is None else residual + tokens


def _normalized(window: WindowTokens, vectors: Tensor) -> Tensor:
    widths = [part.shape[-1] for part in window.parts]
    split = vectors.split(widths, dim=-1)
    return torch.cat([apply_scale_shift(part, *each) for part, *each in zip(window.parts, split, strict=True)], dim=-1)


def _concat(window: WindowTokens) -> Tensor:
    tokens = torch.cat(window.parts, dim=-1)
    if window.added is None:
        return tokens
    return (tokens.unflatten(0, (-1, window.frames)) + window.added[:, None, None]).flatten(0, 1)
