"""Gives a generated face the source's own detail back wherever the generator changed nothing.

An autoencoder blurs skin, beard and background. How much it loses is known for the source frame: the frame minus its
own rendering by the autoencoder. That difference is added to the new face where the new face equals the source's
rendering, so only what really moved (lips, mouth, jaw line) keeps the autoencoder's softness.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentsync.face.morphology import gaussian_blur

_TOLERANCE = 0.08  # difference, in pixel values of [-1, 1], at which a third of the detail is left
_RADIUS = 1 / 28  # how far a change reaches, as a share of the face


def detail_share(generated: Tensor, rendered: Tensor, source: Tensor) -> Tensor:
    """How much of the source's detail fits the generated face.

    Args:
        generated: (n, 3, R, R) in [-1, 1], the new faces from the decoder.
        rendered: (n, 3, R, R) in [-1, 1], the source faces through encoder and decoder.
        source: (n, 3, R, R) in [-1, 1], the source faces.

    Returns:
        share (n, 1, R, R) in [0, 1]: ``generated + share * (source - rendered)`` is the new face with detail.
    """
    radius = max(1, round(source.shape[-1] * _RADIUS))
    change = (generated - rendered).abs().amax(dim=1, keepdim=True)
    spread = gaussian_blur(change.float(), radius, radius / 2)
    return torch.exp(-((spread / _TOLERANCE) ** 2)).to(source.dtype)
