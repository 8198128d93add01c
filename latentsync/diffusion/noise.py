"""Noise of a whole window: partly shared by its frames, partly individual.

The shared part keeps a window from flickering; the individual part keeps the noisy latents from revealing how the
frames differ, which the network has to learn from the audio.
"""

import torch
from einops import repeat
from torch import Tensor

from latentsync.errors import ConfigError


def mix_noise(shared: Tensor, individual: Tensor, alpha: float) -> Tensor:
    """Mix two standard normal draws so that the result is standard normal again.

    Args:
        shared: (b, c, f, h, w); only its first frame is used, for every frame.
        individual: (b, c, f, h, w).
        alpha: ratio of the common to the individual standard deviation, 0 or more; 1 = equal parts.

    Returns:
        (b, c, f, h, w): ``shared * sqrt(alpha^2 / (1 + alpha^2)) + individual * sqrt(1 / (1 + alpha^2))``.

    Raises:
        ConfigError: alpha is negative.
    """
    if alpha < 0:
        raise ConfigError(f"Mixed noise: alpha is {alpha}, expected 0 or more; 1 gives equal parts")
    power = alpha**2 / (1 + alpha**2)
    common = repeat(shared[:, :, :1], "b c 1 h w -> b c f h w", f=individual.shape[2])
    return common * power**0.5 + individual * (1 - power) ** 0.5


def draw_mixed_noise(
    shape: tuple[int, int, int, int, int], alpha: float, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Draw window noise of ``shape`` (b, c, f, h, w) on the generator's device: the shared part first, at full size."""
    shared, individual = (torch.randn(shape, generator=generator, device=generator.device, dtype=dtype) for _ in "si")
    return mix_noise(shared, individual, alpha)
