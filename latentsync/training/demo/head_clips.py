"""The synthetic head as a source of training clips."""

import random

import torch
from torch import Tensor

from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.population import sample_setting
from latentsync.synthetic.speech.text import Split


class HeadClips:
    """Random people, scenes and movements, rendered straight into the aligned crop; see `ClipSource`.

    Args:
        resolution: side R of the crop.
        device: where to render.
        split: whose people are shown.
        fps: of the mouth curves.
    """

    def __init__(self, resolution: int, device: torch.device, split: Split = "train", fps: float = 25.0) -> None:
        self.resolution, self.split, self.fps = resolution, split, fps
        self._renderer = HeadRenderer(device)

    @torch.no_grad()
    def clips(self, curves: Tensor, generator: torch.Generator) -> Tensor:
        """See `ClipSource.clips`."""
        seed = int(torch.randint(1 << 31, (1,), generator=generator, device=generator.device))
        setting = sample_setting(random.Random(seed), self.split, curves.shape[1], self.fps)
        states = [HeadState(curve, setting.motion, setting.identity, setting.scene) for curve in curves.cpu().numpy()]
        return self._renderer.render_takes(states, self.resolution, setting.jitter) * 2 - 1
