"""Tells where a video changes to another scene, from its faces alone and without waiting for the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Side of a face at a glance, by way of a size at which a GPU still has enough to do at once.
_GLANCE, _HALFWAY = 8, 64
_CUT = 0.25  # how much of [-1, 1] the glance changes by where another scene begins


class SceneCutDetector:
    """Looks at the faces of a video in their order."""

    def __init__(self) -> None:
        self._before: Tensor | None = None  # the last frame's glance, (1, 3, 8, 8)

    def __call__(self, source: Tensor) -> Tensor:
        """Where scenes begin.

        Args:
            source: (n, 3, R, R) in [-1, 1], the next source faces.

        Returns:
            (n,) bool on their device: the frame begins a scene. The first of the video always does.
        """
        thumbnails = F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(source.float(), _HALFWAY), _GLANCE)
        earlier = thumbnails[:1] if self._before is None else self._before
        change = (thumbnails - torch.cat([earlier, thumbnails[:-1]])).abs().mean(dim=(1, 2, 3))
        is_scene_start = change >= _CUT
        if self._before is None:
            is_scene_start[:1].fill_(True)
        self._before = thumbnails[-1:]
        return is_scene_start
