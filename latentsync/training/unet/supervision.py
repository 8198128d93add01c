"""The objective of U-Net training, and the frozen VAE that decodes for its pixel losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentsync.losses.objective import Objective
from latentsync.training.unet.latent_windows import LatentWindows, decode_windows

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL


@dataclass
class Supervision:
    """What a U-Net is trained against.

    Attributes:
        vae: frozen decoder.
        objective: the losses and their weights.
        chunk_size: frames decoded at a time.
    """

    vae: AutoencoderKL
    objective: Objective
    chunk_size: int = 4

    def to(self, device: torch.device) -> None:
        """Move all networks."""
        self.vae.to(device)
        self.objective.to(device)

    def decode_with_gradient(self, latents: Tensor) -> Tensor:
        """Pixels (b, 3, f, R, R) float32 of latents (b, 4, f, h, w), differentiable."""
        return decode_windows(self.vae, latents, self.chunk_size)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (b, 3, f, R, R) float32 of latents (b, 4, f, h, w), without a gradient."""
        # No activations are kept for a backward pass, so more frames fit at a time.
        return decode_windows(self.vae, latents, 4 * self.chunk_size)

    def gt_pixels(self, windows: LatentWindows) -> Tensor:
        """The ground truth (b, 3, f, R, R); where only latents are cached, their reconstruction by the VAE."""
        return self.decode(windows.clean) if windows.gt_pixel_values is None else windows.gt_pixel_values
