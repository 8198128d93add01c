"""Gives a generated face the source's own detail back wherever the generator changed nothing.

An autoencoder blurs skin, beard and background. How much it loses is known for the source frame: the frame minus its
own rendering by the autoencoder. That difference is added to the new face where the new face equals the source's
rendering, so only what really moved (lips, mouth, jaw line) keeps the autoencoder's softness. Where the source's mouth
opens and closes beside a new mouth that rests, skin would turn soft and sharp with it; so detail comes back slowly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentsync.face.compositing.morphology import blur_masks
from latentsync.face.compositing.scene_cuts import SceneCutDetector

_TOLERANCE = 0.08  # difference, in pixel values of [-1, 1], at which a third of the detail is left
_RADIUS = 1 / 28  # how far a change reaches, as a share of the face
_RETURN_FRAMES = 16  # in which detail comes back: too slow to be seen as a pulse


def detail_weight(generated: Tensor, reconstruction: Tensor, source: Tensor) -> Tensor:
    """How much of the source's detail fits the generated face.

    Args:
        generated: (n, 3, R, R) in [-1, 1], the new faces from the decoder.
        reconstruction: (n, 3, R, R) in [-1, 1], the source faces through encoder and decoder.
        source: (n, 3, R, R) in [-1, 1], the source faces.

    Returns:
        share (n, 1, R, R) in [0, 1]: ``generated + share * (source - reconstruction)`` is the new face with detail.
    """
    radius = max(1, round(source.shape[-1] * _RADIUS))
    change = (generated - reconstruction).abs().amax(dim=1, keepdim=True)
    spread = blur_masks(change.float(), radius, radius / 2)
    return torch.exp(-((spread / _TOLERANCE) ** 2)).to(source.dtype)


class SmoothedDetailWeight:
    """`detail_weight` over the frames of a video in their order: it falls at once, and rises slowly but at a cut."""

    def __init__(self) -> None:
        self._cuts = SceneCutDetector()
        self._last: Tensor | None = None  # share of the last frame, (1, 1, R, R)

    def __call__(self, generated: Tensor, reconstruction: Tensor, source: Tensor) -> Tensor:
        """As `detail_weight`, for the next frames."""
        weights = detail_weight(generated, reconstruction, source).nan_to_num(
            0.0
        )  # a frame that overflowed spoils no other
        is_scene_start = self._cuts(source)
        if self._last is not None:
            weights, is_scene_start = (
                torch.cat([self._last, weights]),
                torch.cat([is_scene_start.new_zeros(1), is_scene_start]),
            )
        steady = _rise_slowly(weights, is_scene_start.float().cumsum(0))
        given, self._last = steady[-len(source) :], steady[-1:]
        return given


def _rise_slowly(weights: Tensor, scenes: Tensor) -> Tensor:
    """Shares (n, 1, R, R) that rise by 1 / _RETURN_FRAMES a frame at most while the scene (n,) stays the same.

    That is the least of ``share[i - k] + k / _RETURN_FRAMES``; every pass doubles the k that are looked at, and as
    shares end at 1, no k from _RETURN_FRAMES on counts.
    """
    step = 1
    while step < min(_RETURN_FRAMES, len(weights)):
        earlier = weights[:-step] + step / _RETURN_FRAMES
        same = (scenes[step:] == scenes[:-step])[:, None, None, None]
        later = torch.where(same, torch.minimum(weights[step:], earlier), weights[step:])
        weights = torch.cat([weights[:step], later])
        step *= 2
    return weights
