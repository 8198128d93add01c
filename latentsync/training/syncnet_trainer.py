"""Training StableSyncNet: the task that `latentsync.training.trainer.Trainer` works on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from latentsync.data.samples import SyncNetBatch
from latentsync.losses.sync import syncnet_bce
from latentsync.models.stable_syncnet import cosine, lower_half
from latentsync.models.vae import encode_latents
from latentsync.training.published_files import save_published
from latentsync.training.sheet import save_sheet
from latentsync.training.task import Shard

_SHEET_PAIRS = 6


@dataclass
class FramesToImage:
    """Turns windows of frames into what a SyncNet takes.

    Attributes:
        lower_half: only the lower half of the pictures.
        vae: for a SyncNet of latents, else None.
        chunk_size: pictures encoded at a time.
    """

    lower_half: bool = True
    vae: AutoencoderKL | None = None
    chunk_size: int = 32

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """(b, f, 3, R, R) uint8 -> (b, f * 3, R / 2, R) in [-1, 1], or latents (b, f * 4, R / 8, R / 8)."""
        pixels = frames.float() / 127.5 - 1
        if self.vae is not None:
            flat = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.dtype)
            latents = encode_latents(self.vae, flat, None, self.chunk_size).float()
            return rearrange(latents, "(b f) c h w -> b (f c) h w", b=len(frames))
        image = rearrange(pixels, "b f c h w -> b (f c) h w")
        return lower_half(image) if self.lower_half else image


class SyncNetTask:
    """See `TrainingTask`.

    Args:
        network: a StableSyncNet.
        to_image: prepares frames.
        validation: batches of a fixed set, in the same order at every iteration.
    """

    name = "syncnet"

    def __init__(self, network: nn.Module, to_image: FramesToImage, validation: Sequence[SyncNetBatch]) -> None:
        self.network, self.to_image, self.validation = network, to_image, validation
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self._device = device
        if self.to_image.vae is not None:
            self.to_image.vae.to(device)

    def losses(self, network: nn.Module, batch: SyncNetBatch) -> dict[str, Tensor]:
        """See `TrainingTask.losses`: cross-entropy of the cosine, and the share of pairs told right."""
        agreement = self._agreement(network, batch)
        labels = batch.labels.to(self._device)
        right = ((agreement.detach() > 0.5) == (labels > 0.5)).float().mean()
        return {"total": syncnet_bce(agreement, labels), "accuracy": right}

    def _agreement(self, network: nn.Module, batch: SyncNetBatch) -> Tensor:
        image = self.to_image(batch.frames.to(self._device, non_blocking=True))
        return cosine(*network(image, batch.mel.to(self._device, non_blocking=True)))

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: loss and accuracy on the fixed pairs."""
        loss, right, count = 0.0, 0.0, 0
        for batch in _every(self.validation, shard):
            terms = self.losses(network, batch)
            loss += float(terms["total"]) * len(batch.labels)
            right += float(terms["accuracy"]) * len(batch.labels)
            count += len(batch.labels)
        return {"loss": (loss, count), "accuracy": (right, count)}

    def illustrate(self, network: nn.Module, folder: Path, step: int) -> None:
        """See `TrainingTask.illustrate`: what the network is shown; the same at every step, so written once."""
        path = folder / "syncnet_input.jpg"
        if self.validation and not path.exists():
            frames = next(iter(self.validation)).frames[:_SHEET_PAIRS]
            save_sheet(path, [window.float() / 127.5 - 1 for window in frames])

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """See `TrainingTask.export`: ``{"state_dict", "global_step"}``."""
        return save_published(state_dict, folder / f"stable_syncnet-{step}.pt", step)


def _every(batches: Sequence[SyncNetBatch], shard: Shard) -> Iterable[SyncNetBatch]:
    return batches[shard.rank :: shard.world]
