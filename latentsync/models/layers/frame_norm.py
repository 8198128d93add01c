"""Group norm over the frames of a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import from_tokens, stored, to_pictures, to_tokens, to_video

_HALF_TYPES = (torch.float16, torch.bfloat16)


class FrameGroupNorm(nn.GroupNorm):
    """Group norm whose statistics can run over several frames of one video jointly.

    Attributes:
        has_kernel: whether a compiled network is to take our kernel where it can.
    """

    has_kernel = True

    def forward(self, hidden: Tensor, frames: int = 1) -> Tensor:
        """Normalise.

        hidden ((b frames), c, h, w) -> the same shape. Statistics are shared by each run of ``frames`` frames:
        1 = per frame, the window's length = jointly over the window.
        """
        if _counts_passes(hidden):
            return from_tokens(self._by_moments(to_tokens(hidden), frames), hidden.shape[-2])
        video = to_video(hidden, frames)
        return to_pictures(F.group_norm(video, self.num_groups, self.weight, self.bias, self.eps))

    def of_tokens(self, tokens: Tensor, height: int, waiting: Tensor | None = None) -> Tensor:
        """Normalise each frame, with what waits added before.

        tokens (n, s, c) of pictures ``height`` positions high, waiting (c,) -> the same shape
        """
        if _counts_passes(tokens):
            return self._by_moments(tokens, 1, waiting)
        tokens = tokens if waiting is None else tokens + waiting
        return to_tokens(self(from_tokens(tokens, height)))

    def _by_moments(self, tokens: Tensor, frames: int, waiting: Tensor | None = None) -> Tensor:
        """Same result from two sums in float32 and one multiply-add: ((b frames), s, c) -> the same shape.

        CUDA's own kernel copies channels-last memory to and fro, which took 16 % of the network's time on an H200. And
        it is tokens here since a compiler may lay pictures out anew.
        """
        added = None if waiting is None else waiting[None]
        vectors = kernels.group_moments([tokens], added, self, frames) if self.has_kernel else None
        if vectors is not None:
            return scaled(tokens, vectors)
        tokens = tokens if waiting is None else tokens + waiting
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


def scaled(tokens: Tensor, vectors: Tensor) -> Tensor:
    """``tokens * scale + offset`` in float32: tokens ((b frames), s, c), both vectors (b, 2, c) -> the same shape."""
    scale, offset = vectors[:, :, None, None].unbind(1)
    video = tokens.unflatten(0, (len(vectors), -1))
    return torch.addcmul(offset, video.float(), scale).to(tokens.dtype).flatten(0, 1)


def _counts_passes(tensor: Tensor) -> bool:
    """Whether passes over memory are what a norm costs here; and there are no gradients to be had by moments."""
    return tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()
