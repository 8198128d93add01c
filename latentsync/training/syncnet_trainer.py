"""Training StableSyncNet: the task that `latentsync.training.trainer.Trainer` works on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from latentsync.data.samples import SyncNetBatch
from latentsync.losses.compose import compose
from latentsync.losses.sync import contrastive_loss, syncnet_bce
from latentsync.models.stable_syncnet import cosine, lower_half
from latentsync.models.vae import encode_latents
from latentsync.training.draws import SampleDraws
from latentsync.training.frame_source import vary_windows
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
    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, f, 3, R, R) in [-1, 1] -> (b, f * 3, R / 2, R), or latents (b, f * 4, R / 8, R / 8)."""
        if self.vae is not None:
            flat = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.dtype)
            latents = encode_latents(self.vae, flat, None, self.chunk_size).float()
            return rearrange(latents, "(b f) c h w -> b (f c) h w", b=len(pixels))
        image = rearrange(pixels, "b f c h w -> b (f c) h w")
        return lower_half(image) if self.lower_half else image


@dataclass(frozen=True)
class SyncNetTaskOptions:
    """How a SyncNet is trained.

    Attributes:
        seed: of the changes to the frames.
        varied: change the training frames lightly, see `vary_windows`.
        contrastive_weight: weight of `contrastive_loss` beside the cross-entropy of single pairs; 0 as published.
    """

    seed: int = 42
    varied: bool = False
    contrastive_weight: float = 0.0


class SyncNetTask:
    """See `TrainingTask`.

    Args:
        network: a StableSyncNet.
        to_image: prepares frames.
        validation: batches of a fixed set, in the same order at every iteration.
        options: how it is trained.
    """

    name = "syncnet"

    def __init__(
        self,
        network: nn.Module,
        to_image: FramesToImage,
        validation: Sequence[SyncNetBatch],
        options: SyncNetTaskOptions | None = None,
    ) -> None:
        self.network, self.to_image, self.validation = network, to_image, validation
        self.options = options or SyncNetTaskOptions()
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self._device = device
        if self.to_image.vae is not None:
            self.to_image.vae.to(device)

    def losses(self, network: nn.Module, batch: SyncNetBatch) -> dict[str, Tensor]:
        """See `TrainingTask.losses`: cross-entropy of the cosine, and the share of pairs told right."""
        pixels, options = self._pixels(batch), self.options
        if options.varied:
            pixels = vary_windows(pixels, SampleDraws(options.seed, batch.sample_ids, self._device))
        return self._judged(network, pixels, batch, options.contrastive_weight)

    def _pixels(self, batch: SyncNetBatch) -> Tensor:
        return batch.frames.to(self._device, non_blocking=True).float() / 127.5 - 1

    def _judged(
        self, network: nn.Module, pixels: Tensor, batch: SyncNetBatch, contrastive_weight: float = 0.0
    ) -> dict[str, Tensor]:
        labels = batch.labels.to(self._device)
        seen, heard = network(self.to_image(pixels), batch.mel.to(self._device, non_blocking=True))
        agreement = cosine(seen, heard)
        terms = {
            "bce": lambda: syncnet_bce(agreement, labels),
            "contrastive": lambda: contrastive_loss(seen, heard, labels),
        }
        losses = compose(terms, {"bce": 1.0, "contrastive": contrastive_weight})
        right = ((agreement.detach() > 0.5) == (labels > 0.5)).float().mean()
        return {**losses, "accuracy": right}

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: cross-entropy and accuracy on the fixed pairs."""
        loss, right, count = 0.0, 0.0, 0
        for batch in _every(self.validation, shard):
            terms = self._judged(network, self._pixels(batch), batch)
            loss += float(terms["bce"]) * len(batch.labels)
            right += float(terms["accuracy"]) * len(batch.labels)
            count += len(batch.labels)
        return {"bce": (loss, count), "accuracy": (right, count)}

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
