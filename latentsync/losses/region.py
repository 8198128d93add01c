"""The region of a face that pixel losses compare."""

from einops import rearrange
from torch import Tensor


def lower_half(images: Tensor) -> Tensor:
    """Keep the rows from height // 2 on, where the mouth is: (..., h, w) -> (..., h - h // 2, w)."""
    return images[..., images.shape[-2] // 2 :, :]


def mouth_images(video: Tensor) -> Tensor:
    """The lower halves of all frames as single images: (b, c, f, h, w) -> ((b f), c, h - h // 2, w)."""
    return rearrange(lower_half(video), "b c f h w -> (b f) c h w")
