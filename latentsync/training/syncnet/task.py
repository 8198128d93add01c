"""Training StableSyncNet: the task that `latentsync.training.loop.trainer.Trainer` works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.data.sampling.samples import SyncNetBatch
from latentsync.losses.inputs import SyncNetLossInputs
from latentsync.losses.objective import Objective
from latentsync.losses.region import lower_half
from latentsync.losses.sync import syncnet_bce
from latentsync.media.audio.syncnet_mel import N_MELS, mel_columns
from latentsync.models.stable_syncnet import StableSyncNet, cosine
from latentsync.models.vae import encode_latents
from latentsync.models.weights.published_layout import save_published
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS
from latentsync.training.loop.task import Shard
from latentsync.training.reporting.image_sheet import save_sheet
from latentsync.training.syncnet.cached_frames import augment_windows

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

_SHEET_PAIRS = 6


@dataclass
class FramesToImage:
    """Turns windows of frames into SyncNet inputs.

    Attributes:
        lower_half: keep only the lower half of the frames.
        vae: for a SyncNet on latents, else None.
        chunk_size: frames encoded at a time.
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
        seed: of the augmentation.
        augment: augment the training frames, see `augment_windows`.
    """

    seed: int = 42
    augment: bool = False


class GuidedSyncNet(nn.Module):
    """A SyncNet in training with an auxiliary head: a linear map that predicts mouth parameters from either embedding.

    The shared target aligns both encoders early. Without it a small network trained from scratch may not leave the
    chance level.

    Args:
        syncnet: is trained.
        num_frames: f of a window.
        num_mouth_params: mouth parameters per frame.
    """

    def __init__(self, syncnet: StableSyncNet, num_frames: int, num_mouth_params: int = len(MOUTH_PARAMETERS)) -> None:
        super().__init__()
        self.syncnet = syncnet
        self.num_frames = num_frames
        with torch.no_grad():
            width = syncnet.audio_encoder(torch.zeros(1, 1, N_MELS, mel_columns(num_frames))).shape[1]
        # Entries of a unit vector are about 1 / sqrt(width).
        self.scale = width**0.5
        self.reader = nn.Linear(width, num_frames * num_mouth_params)

    def forward(self, image: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embed both modalities and predict the mouth from each.

        image, audio as for `StableSyncNet` -> vision_embeds, audio_embeds (b, d), readings of both (b, f, k)
        """
        vision_embeds, audio_embeds = self.syncnet(image, audio)
        return vision_embeds, audio_embeds, self._read(vision_embeds), self._read(audio_embeds)

    def _read(self, embeds: Tensor) -> Tensor:
        return rearrange(self.reader(embeds * self.scale), "b (f k) -> b f k", f=self.num_frames)


class SyncNetTask:
    """See `TrainingTask`.

    Args:
        network: a StableSyncNet, or a GuidedSyncNet, whose mouth readings losses may use.
        to_image: prepares frames.
        objective: the losses and their weights.
        validation: batches of a fixed set, in the same order at every iteration.
        options: how it is trained.
    """

    name = "syncnet"

    def __init__(
        self,
        network: nn.Module,
        to_image: FramesToImage,
        objective: Objective,
        validation: Sequence[SyncNetBatch],
        options: SyncNetTaskOptions | None = None,
    ) -> None:
        self.network, self.to_image, self.objective, self.validation = network, to_image, objective, validation
        self.options = options or SyncNetTaskOptions()
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self._device = device
        self.objective.to(device)
        if self.to_image.vae is not None:
            self.to_image.vae.to(device)

    def losses(self, network: nn.Module, batch: SyncNetBatch) -> dict[str, Tensor]:
        """See `TrainingTask.losses`: every loss of the objective, and the accuracy on the batch."""
        pixels, options = self._pixels(batch), self.options
        if options.augment:
            pixels = augment_windows(pixels, SampleRng(options.seed, batch.sample_ids, self._device))
        step = self._step(network, pixels, batch)
        return {**self.objective(step), "accuracy": _accuracy(step)}

    def _pixels(self, batch: SyncNetBatch) -> Tensor:
        return batch.frames.to(self._device, non_blocking=True).float() / 127.5 - 1

    def _step(self, network: nn.Module, pixels: Tensor, batch: SyncNetBatch) -> SyncNetLossInputs:
        """Run the network, and collect what losses may read."""
        vision_embeds, audio_embeds, *readings = network(
            self.to_image(pixels), batch.mel.to(self._device, non_blocking=True)
        )
        curves = None
        if batch.video_mouth_curves is not None and batch.audio_mouth_curves is not None:
            curves = batch.video_mouth_curves.to(self._device), batch.audio_mouth_curves.to(self._device)
        return SyncNetLossInputs(
            vision_embeds=vision_embeds,
            audio_embeds=audio_embeds,
            cosine=cosine(vision_embeds, audio_embeds),
            labels=batch.labels.to(self._device),
            mouth_readings=readings,
            mouth_curves=curves,
            clips=batch.clips,
        )

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: cross-entropy and accuracy on the fixed pairs."""
        loss, right, count = 0.0, 0.0, 0
        for batch in _every(self.validation, shard):
            step = self._step(network, self._pixels(batch), batch)
            loss += float(syncnet_bce(step.cosine, step.labels)) * len(batch.labels)
            right += float(_accuracy(step)) * len(batch.labels)
            count += len(batch.labels)
        return {"bce": (loss, count), "accuracy": (right, count)}

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """See `TrainingTask.save_samples`: input frames; the same at every step, so written once."""
        path = folder / "syncnet_input.jpg"
        if self.validation and not path.exists():
            frames = next(iter(self.validation)).frames[:_SHEET_PAIRS]
            save_sheet(path, [window.float() / 127.5 - 1 for window in frames])

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """See `TrainingTask.export`: ``{"state_dict", "global_step"}``."""
        if isinstance(self.network, GuidedSyncNet):
            mark = "syncnet."
            state_dict = {key.removeprefix(mark): each for key, each in state_dict.items() if key.startswith(mark)}
        return save_published(state_dict, folder / f"stable_syncnet-{step}.pt", step)


def _accuracy(step: SyncNetLossInputs) -> Tensor:
    """() fraction of the pairs on the right side of 0.5."""
    return ((step.cosine.detach() > 0.5) == (step.labels > 0.5)).float().mean()


def _every(batches: Sequence[SyncNetBatch], shard: Shard) -> Iterable[SyncNetBatch]:
    return batches[shard.rank :: shard.world_size]
