"""Group norm without layout copies, for CUDA in half precision."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import from_tokens, to_tokens

_HALF_TYPES = (torch.float16, torch.bfloat16)


class FusedGroupNorm(FrameGroupNorm):
    """As `FrameGroupNorm`, from two sums where that is faster; also applied to tokens.

    Attributes:
        has_kernel: whether a compiled network may use our Triton kernel.
    """

    has_kernel = True

    @classmethod
    def of(cls, norm: nn.GroupNorm) -> Self:
        """The same norm with the same Parameters."""
        fused = cls(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        fused.weight, fused.bias = norm.weight, norm.bias
        return fused

    def forward(self, hidden: Tensor, frames: int = 1) -> Tensor:
        """See `FrameGroupNorm.forward`."""
        if _is_memory_bound(hidden):
            return from_tokens(self._by_moments(to_tokens(hidden), frames), hidden.shape[-2])
        return super().forward(hidden, frames)

    def forward_tokens(self, tokens: Tensor, height: int, pending_bias: Tensor | None = None) -> Tensor:
        """Add a bias and normalize each frame.

        tokens (n, s, c) of images ``height`` positions high, pending_bias (c,) -> the same shape
        """
        if _is_memory_bound(tokens):
            return self._by_moments(tokens, 1, pending_bias)
        tokens = tokens if pending_bias is None else tokens + pending_bias
        return to_tokens(self(from_tokens(tokens, height)))

    def _by_moments(self, tokens: Tensor, frames: int, pending_bias: Tensor | None = None) -> Tensor:
        """The same result from two sums in float32 and one multiply-add: ((b frames), s, c) -> the same shape.

        CUDA's own kernel copies channels-last memory back and forth, which took 16 % of the network's time on an H200.
        It works on tokens because a compiler may change the memory layout of images.
        """
        added = None if pending_bias is None else pending_bias[None]
        vectors = kernels.group_moments([tokens], added, self, frames) if self.has_kernel else None
        if vectors is not None:
            return apply_scale_shift(tokens, vectors)
        tokens = tokens if pending_bias is None else tokens + pending_bias
        video = tokens.unflatten(0, (-1, frames))
        axes, width = (1, 2), video.shape[-1] // self.num_groups
        count = video[0, ..., :width].numel()
        # Per channel first: neighbors in memory are then summed side by side.
        sums = video.sum(dim=axes, dtype=torch.float32)
        squares = torch.linalg.vector_norm(video, dim=axes, dtype=torch.float32).square()
        mean, square = (part.unflatten(1, (self.num_groups, -1)).sum(-1) / count for part in (sums, squares))
        scale = torch.rsqrt((square - mean.square()).clamp_min(0) + self.eps)
        # What is rounded must be small: first the mean as half precision has it, then what that leaves of it.
        center = mean.to(tokens.dtype)
        shift = (center.float() - mean) * scale
        center, scale, shift = (part.repeat_interleave(width, dim=1) for part in (center, scale, shift))
        scale, shift = scale * self.weight, shift * self.weight + self.bias
        center, scale, shift = (_materialized(part.to(tokens.dtype))[:, None, None] for part in (center, scale, shift))
        return torch.addcmul(shift, video - center, scale).flatten(0, 1)


def apply_scale_shift(tokens: Tensor, vectors: Tensor) -> Tensor:
    """``tokens * scale + shift`` in float32: tokens ((b frames), s, c), both vectors (b, 2, c) -> the same shape."""
    scale, shift = vectors[:, :, None, None].unbind(1)
    video = tokens.unflatten(0, (len(vectors), -1))
    return torch.addcmul(shift, video.float(), scale).to(tokens.dtype).flatten(0, 1)


def _materialized(tensor: Tensor) -> Tensor:
    """The same tensor. Its strides are needed, so a compiler computes it once instead of fusing it into every use."""
    return tensor.as_strided(tensor.shape, tensor.stride())


def _is_memory_bound(tensor: Tensor) -> bool:
    """Whether memory passes dominate the cost of a norm here; there are no gradients by moments."""
    return tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()
