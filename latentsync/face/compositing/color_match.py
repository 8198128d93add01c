"""Matches a generated face's colours to its surroundings: an autoencoder shifts them, and the paste would show it.

Around the repainted region both the source's pixels and the decoder's rendering of them are known. The affine colour
map that best takes one to the other there is applied to the whole decoded face. It is accumulated over the frames of
a scene with a slow decay, so that it cannot flicker.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.face.compositing.scene_cuts import SceneCutDetector

_MEMORY = 0.9  # weight of the sums so far when a new frame is added
_PRIOR = 0.002  # weight of "leave colours as they are", as a share of the pixels looked at
_REACH = 16  # how far from the repainted region pixels count, as a fraction (1 / reach) of the face
_SMALL = 64  # side at which colours are compared: fine detail, which decoders blur, must not count


class ColorMatcher:
    """The colour map of one video; frames must come in order.

    Args:
        mask: (3, R, R) float, 1 = keep, 0 = repaint.
    """

    def __init__(self, mask: Tensor) -> None:
        keep = mask[:1, :, :].float()[None]
        reach = 2 * (keep.shape[-1] // _REACH) + 1
        near = F.max_pool2d(1 - keep, reach, stride=1, padding=reach // 2)
        whole = F.adaptive_avg_pool2d(keep, _SMALL) > 1 - 1e-4
        self._weight = rearrange(F.adaptive_avg_pool2d(near, _SMALL) * whole, "1 1 h w -> (h w) 1")
        self._cuts = SceneCutDetector()
        # Of the scene so far: (1, 4, 7) decayed sums, moments (4, 4) and targets (4, 3); whether there are any, (1,).
        self._state: tuple[Tensor, Tensor] | None = None

    def __call__(self, decoded: Tensor, source: Tensor) -> Tensor:
        """Match colours.

        Args:
            decoded: (n, 3, R, R) in [-1, 1], the decoder's whole faces of consecutive frames.
            source: (n, 3, R, R) in [-1, 1], the faces as they came.

        Returns:
            (n, 3, R, R): decoded, its colours mapped; dtype and device as given.
        """
        maps = self._maps(_pixels(decoded), _pixels(source), self._cuts(source)).to(decoded.dtype)
        return torch.einsum("n i c, n i h w -> n c h w", maps[:, :3], decoded) + rearrange(maps[:, 3], "n c -> n c 1 1")

    def _maps(self, decoded: Tensor, source: Tensor, is_scene_start: Tensor) -> Tensor:
        """Least-squares maps (n, 4, 3) from (n, p, 3) decoded to (n, p, 3) source colours, one per frame.

        is_scene_start: (n,) bool, where scenes begin.
        """
        ones = torch.ones_like(decoded[..., :1])
        inputs = torch.cat([decoded, ones], dim=-1)
        weighted = inputs * self._weight.to(inputs.device)
        moments = torch.einsum("n p i, n p j -> n i j", weighted, inputs)
        targets = torch.einsum("n p i, n p c -> n i c", weighted, source)
        # At least one pixel's worth: where a mask shows no surround at all, colours stay as they are.
        prior = _PRIOR * self._weight.sum().clamp_min(1).to(inputs.device) * torch.eye(4, device=inputs.device)
        sums = self._accumulate(torch.cat([moments, targets], dim=-1), is_scene_start)
        solved: Tensor = torch.linalg.solve_ex(sums[..., :4] + prior, sums[..., 4:] + prior[:, :3])[0]
        return solved

    def _accumulate(self, fresh: Tensor, is_scene_start: Tensor) -> Tensor:
        """Each frame's own sums (n, 4, 7) -> those of its scene so far, decayed, (n, 4, 7).

        As a recurrence: ``sums[i] = _MEMORY * sums[i - 1] + (1 - _MEMORY) * fresh[i]``, a scene's first frame counting
        whole. Written out, each frame's sums are a weighted mean of the scene's frames, all computed at once.
        """
        # A frame whose decoding overflowed must not spoil those after it.
        usable = torch.isfinite(fresh).all(-1).all(-1)
        fresh = torch.where(usable[:, None, None], fresh, 0)
        carried = 0 if self._state is None else 1
        if self._state is not None:
            sums, have_any = self._state
            fresh, usable = torch.cat([sums, fresh]), torch.cat([have_any, usable])
            is_scene_start = torch.cat([torch.ones_like(have_any), is_scene_start])
        scenes, counts = is_scene_start.float().cumsum(0), usable.float().cumsum(0)
        counted = torch.tril(((scenes[:, None] == scenes) & usable).float())  # row: which frames count for it
        known = counted.sum(1)
        sample_weight = torch.where(usable & (known == 1), 1.0, 1 - _MEMORY)
        weights = counted * sample_weight * _MEMORY ** (counts[:, None] - counts).clamp_min(0)
        sums = (weights[:, :, None, None] * fresh).sum(1)
        self._state = sums[-1:], known[-1:] > 0
        return sums[carried:]


def _pixels(faces: Tensor) -> Tensor:
    """(n, 3, R, R) -> (n, p, 3) float32 at the size at which colours are compared."""
    return rearrange(F.adaptive_avg_pool2d(faces.float(), _SMALL), "n c h w -> n (h w) c")
