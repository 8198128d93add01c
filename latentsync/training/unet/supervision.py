"""Judges of the decoded picture: mouth against sound, look, movement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from latentsync.errors import ConfigError
from latentsync.losses.reconstruction import pixel_loss
from latentsync.training.unet.latent_windows import LatentWindows, decode_windows

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

TERMS = ("sync", "perceptual", "trepa", "pixel")


@dataclass
class Supervision:
    """What is asked of a clean estimate beside its latents.

    Attributes:
        vae: decodes, frozen.
        weights: weight of each of `TERMS` that counts.
        critics: the module of each term but ``pixel``.
        importance: (1, 1, 1, R, R) weights of the pixel term, for example the repainted region.
        in_pixels: decode the estimate; otherwise only ``sync`` counts, and judges latents.
        chunk_size: pictures decoded at a time.
    """

    vae: AutoencoderKL
    weights: dict[str, float]
    critics: nn.ModuleDict
    importance: Tensor
    in_pixels: bool = True
    chunk_size: int = 4

    def __post_init__(self) -> None:
        self.weights = {name: weight for name, weight in self.weights.items() if weight}
        missing = [name for name in self.weights if name != "pixel" and name not in self.critics]
        if missing or set(self.weights) - set(TERMS):
            raise ConfigError(f"Supervision: weights {self.weights}, but only {sorted(self.critics)} can judge")
        if not self.in_pixels and set(self.weights) - {"sync"}:
            raise ConfigError(f"Supervision of latents knows only the term sync, got {sorted(self.weights)}")

    def to(self, device: torch.device) -> None:
        """Move all networks."""
        self.vae.to(device)
        self.critics.to(device)
        self.importance = self.importance.to(device)

    def terms(self, estimate: Tensor, windows: LatentWindows) -> dict[str, Callable[[], Tensor]]:
        """Functions that compute the terms.

        Args:
            estimate: (b, 4, f, h, w) the clean latents that the network's output stands for, with a gradient.
            windows: the truth.
        """
        if not self.weights:
            return {}
        if not self.in_pixels:
            return {"sync": lambda: self.critics["sync"](estimate, windows.mel)}
        predicted, target = decode_windows(self.vae, estimate, self.chunk_size), self._target(windows)
        known: dict[str, Callable[[], Tensor]] = {
            "sync": lambda: self.critics["sync"](predicted, windows.mel),
            "perceptual": lambda: self.critics["perceptual"](predicted, target),
            "trepa": lambda: self.critics["trepa"](predicted, target),
            "pixel": lambda: pixel_loss(predicted, target, self.importance),
        }
        return {name: known[name] for name in self.weights}

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (b, 3, f, R, R) float32 of latents (b, 4, f, h, w), without a gradient."""
        # Nothing is kept for a backward pass, so that more fit at a time.
        return decode_windows(self.vae, latents, 4 * self.chunk_size)

    def _target(self, windows: LatentWindows) -> Tensor:
        """The true pictures; where only latents are kept, as the VAE shows them, which is the best it can do."""
        if windows.gt_pixel_values is not None:
            return windows.gt_pixel_values
        return self.decode(windows.clean)
