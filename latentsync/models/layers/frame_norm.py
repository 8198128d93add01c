"""Group norm over the frames of a window."""

import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layers.layout import to_images, to_video


class FrameGroupNorm(nn.GroupNorm):
    """Group norm whose statistics can be shared by several frames of one video."""

    def forward(self, hidden: Tensor, frames: int = 1) -> Tensor:
        """Normalize.

        hidden ((b frames), c, h, w) -> the same shape. Statistics are shared by each run of ``frames`` frames:
        1 = per frame, the window's length = over the whole window.
        """
        video = to_video(hidden, frames)
        return to_images(F.group_norm(video, self.num_groups, self.weight, self.bias, self.eps))
