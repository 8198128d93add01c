"""Which part of a face the picture losses look at."""

from einops import rearrange
from torch import Tensor


def lower_half(pictures: Tensor) -> Tensor:
    """Keep the rows from height // 2 on, where the mouth is: (..., h, w) -> (..., h - h // 2, w)."""
    return pictures[..., pictures.shape[-2] // 2 :, :]


def mouth_pictures(video: Tensor) -> Tensor:
    """The lower halves of all frames as single pictures: (b, c, f, h, w) -> ((b f), c, h - h // 2, w)."""
    return rearrange(lower_half(video), "b c f h w -> (b f) c h w")
