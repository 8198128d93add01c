"""The synthetic head as a source of training clips."""

import random

import torch
from torch import Tensor

from latentsync.synthetic.head import HeadRenderer, HeadState
from latentsync.synthetic.identity import sample_identity, sample_motion, sample_scene


class HeadClips:
    """Random people, scenes and movements, rendered straight into the aligned crop; see `ClipSource`.

    Args:
        resolution: side R of the crop.
        device: where to render.
        fps: of the mouth curves.
        jitter: largest standard deviation, in pixels of the 768-pixel frame, of the alignment's error.
    """

    def __init__(self, resolution: int, device: torch.device, fps: float = 25.0, jitter: float = 3.0) -> None:
        self.resolution, self.fps, self.jitter = resolution, fps, jitter
        self._renderer = HeadRenderer(device)

    @torch.no_grad()
    def takes(self, curves: Tensor, generator: torch.Generator) -> Tensor:
        """See `ClipSource.takes`."""
        seed = int(torch.randint(1 << 31, (1,), generator=generator, device=generator.device))
        choice = random.Random(seed)
        identity, scene = sample_identity(choice), sample_scene(choice)
        motion = sample_motion(curves.shape[1], self.fps, choice, liveliness=choice.uniform(0.2, 1.2))
        jitter = choice.uniform(0.0, self.jitter)
        takes = [
            self._renderer.render_aligned(HeadState(curve, motion, identity, scene), self.resolution, jitter)
            for curve in curves.cpu().numpy()
        ]
        return torch.stack(takes) * 2 - 1
