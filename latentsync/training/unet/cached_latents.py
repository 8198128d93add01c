"""Training on latents that are made once: for a small U-Net, encoding is far dearer than the training step itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from latentsync.data.audio_embeddings import ClipAudioEmbeddings
from latentsync.data.clip_dataset import last_problems
from latentsync.data.clips.clip_reader import UnusableClip
from latentsync.data.clips.paired_takes import other_take
from latentsync.data.fixed_set import fixed_keys
from latentsync.data.sampling.epoch_sampler import BatchPartition, EpochSampler
from latentsync.data.sampling.samples import SampleKey
from latentsync.data.sampling.seeding import sample_generator
from latentsync.data.whole_clips import WholeClip
from latentsync.errors import DataError
from latentsync.media.audio.syncnet_mel import mel_window, num_mel_windows
from latentsync.models.vae import encode_latents
from latentsync.training.unet.latent_windows import LatentWindows
from latentsync.whisper.audio_windows import gather_windows, window_rows

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

logger = logging.getLogger(__name__)

_FPS = 25


@dataclass(frozen=True)
class StoredClip:
    """One clip, on the device.

    Attributes:
        latents: (2, t, 4, h, w) half precision: whole faces, and faces with the repainted region blanked.
        features: (rows, layers, d) speech features, 50 rows a second.
        mel: (80, m) float32 SyncNet mel.
        other: number of the clip whose faces are the source: the other take, or the clip itself.
    """

    latents: Tensor
    features: Tensor
    mel: Tensor
    other: int

    @property
    def num_frames(self) -> int:
        """Frames t."""
        return self.latents.shape[1]


class LatentCache:
    """All clips of a data set as latents and speech features.

    Args:
        vae: frozen, on the device where everything is kept.
        audio: features of the speech.
        mask: (3, R, R), 1 = keep, on that device.
        paired_takes: let a clip's other take be the source, where its sidecar names one.
        chunk_size: frames encoded at a time.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        audio: ClipAudioEmbeddings,
        mask: Tensor,
        paired_takes: bool = False,
        chunk_size: int = 2,
    ) -> None:
        self.vae, self.audio, self.mask = vae, audio, mask
        self.paired_takes, self.chunk_size = paired_takes, chunk_size
        self.clips: list[StoredClip] = []
        self.problems: dict[str, str] = {}

    @torch.no_grad()
    def fill(self, clips: Iterator[WholeClip], count: int) -> None:
        """Encode ``count`` clips; those that cannot be used go to ``problems``.

        Raises:
            DataError: none can be used.
        """
        names: list[str] = []
        others: list[Path] = []
        quiet = not logger.isEnabledFor(logging.INFO)
        for clip in tqdm(clips, total=count, desc="encoding clips", unit="clip", disable=quiet):
            try:
                stored, other = self._stored(clip, len(names)), self._source_of(clip)
            except UnusableClip as error:
                logger.warning("clip left out: %s: %s", clip.clip, error.reason)
                self.problems[clip.clip] = error.reason
                continue
            self.clips.append(stored)
            names.append(clip.clip)
            others.append(other)
        if not names:
            raise DataError(
                f"None of the {count} clips can be used; the last ones:\n{last_problems(self.problems)}\n"
                "Check that the right folder was given."
            )
        numbers = {name: number for number, name in enumerate(names)}
        self.clips = [
            replace(clip, other=numbers.get(str(other), clip.other)) for clip, other in zip(self.clips, others)
        ]

    def _stored(self, clip: WholeClip, number: int) -> StoredClip:
        if clip.problem:
            raise UnusableClip(Path(clip.clip), clip.problem)
        features = self.audio.features(Path(clip.clip)).to(self.mask.device, torch.float16)
        # Copied on a CPU too: what a reading process hands over holds a file open.
        mel = clip.mel.to(self.mask.device, copy=True)
        return StoredClip(self._encoded(clip.frames), features, mel, number)

    def _source_of(self, clip: WholeClip) -> Path:
        return other_take(Path(clip.clip)) if self.paired_takes else Path(clip.clip)

    def _encoded(self, frames: Tensor) -> Tensor:
        """(t, 3, R, R) uint8 -> (2, t, 4, R/8, R/8), a few frames at a time: clips may be long."""
        parts = []
        for few in frames.split(self.chunk_size):
            pixels = few.to(self.mask.device, non_blocking=True).float() / 127.5 - 1
            both = (pixels, pixels * self.mask)
            parts.append(
                torch.stack([encode_latents(self.vae, each.to(self.vae.dtype), None, len(few)) for each in both])
            )
        return torch.cat(parts, dim=1).to(torch.float16)


@dataclass(frozen=True)
class LatentSampling:
    """How windows are drawn from a `LatentCache`.

    Attributes:
        num_frames: f of a window.
        windows_per_clip: windows of each clip in an epoch.
        ref_same_prob: fraction of the windows that are their own reference.
        feat_length: (left, right) reach of an audio window in units of 40 ms.
        seed: of everything that is drawn.
    """

    num_frames: int
    windows_per_clip: int = 1
    ref_same_prob: float = 0.0
    feat_length: tuple[int, int] = (2, 2)
    seed: int = 1247


@dataclass(frozen=True)
class LatentBatch:
    """A batch of `CachedLatentSource`: ready windows; problems were reported when the cache was filled."""

    windows: LatentWindows
    problems: dict[str, str]


class CachedLatentSource:
    """See `BatchSource`; samples are drawn as `latentsync.data.unet_dataset.UNetDataset` does.

    Args:
        store: filled.
        sampling: see there.
        batch_size: windows of one step over all processes.
        rank, world_size: of this process.
    """

    def __init__(
        self, store: LatentCache, sampling: LatentSampling, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.store, self.sampling = store, sampling
        self.order = EpochSampler(len(store.clips), sampling.windows_per_clip, sampling.seed)
        self.partition = BatchPartition(len(self.order), batch_size, rank, world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.partition.steps

    def batches(self, epoch: int, first: int) -> Iterator[LatentBatch]:
        """The epoch's batches from number ``first`` on."""
        for positions in self.partition.batches(first):
            yield self._batch([self.order.key(epoch, position) for position in positions])

    def fixed(self, batch_size: int, count: int) -> list[LatentBatch]:
        """The batches of a validation, see `latentsync.data.fixed_set.FixedSet`."""
        return [self._batch(fixed_keys(self.order, batch_size, position)) for position in range(count)]

    def problems(self) -> Mapping[str, str]:
        """Clips that could not be used when the store was filled."""
        return self.store.problems

    def close(self) -> None:
        """Nothing to end."""

    def _batch(self, keys: Sequence[SampleKey]) -> LatentBatch:
        return LatentBatch(_joined([self._window(key) for key in keys]), {})

    def _window(self, key: SampleKey) -> LatentWindows:
        rng = sample_generator(self.sampling.seed, key.epoch, key.index, 0)
        clip = self.store.clips[self.order.clip_index(key.epoch, key.index)]
        source = self.store.clips[clip.other]
        frames = self.sampling.num_frames
        audio_starts = num_mel_windows(clip.mel.shape[1], frames)
        start = int(rng.integers(max(1, min(min(clip.num_frames, source.num_frames) - frames + 1, audio_starts))))
        far = [at for at in range(source.num_frames - frames + 1) if abs(at - start) >= frames]
        same = not far or rng.random() < self.sampling.ref_same_prob
        ref_start = start if same else far[int(rng.integers(len(far)))]
        mel = mel_window(clip.mel, start, frames)
        return LatentWindows(
            clean=_cut(clip.latents[0], start, frames),
            masked=_cut(source.latents[1], start, frames),
            reference=_cut(source.latents[0], ref_start, frames),
            audio=self._audio(clip, start, frames)[None],
            mel=clip.mel[None, None, :, :0] if mel is None else mel[None, None],
            gt_pixel_values=None,
            sample_ids=torch.tensor([key.sample_id]),
        )

    def _audio(self, clip: StoredClip, start: int, frames: int) -> Tensor:
        rows = window_rows(start, start + frames, _FPS, len(clip.features), self.sampling.feat_length)
        return gather_windows(clip.features, rows).float()


def _cut(latents: Tensor, start: int, frames: int) -> Tensor:
    """(t, 4, h, w) -> (1, 4, f, h, w) float32."""
    return rearrange(latents[start : start + frames], "f c h w -> 1 c f h w").float()


def _joined(windows: Sequence[LatentWindows]) -> LatentWindows:
    clean, masked, reference, audio, mel, ids = (
        torch.cat([getattr(window, name) for window in windows])
        for name in ("clean", "masked", "reference", "audio", "mel", "sample_ids")
    )
    return LatentWindows(clean, masked, reference, audio, mel, None, ids)


@dataclass
class ReadyWindows:
    """Stands where `WindowEncoder` does when the windows are ready.

    Attributes:
        mask: (3, R, R), 1 = keep.
    """

    mask: Tensor

    def to(self, device: torch.device) -> None:
        """Move the mask."""
        self.mask = self.mask.to(device)

    def __call__(self, batch: LatentBatch) -> LatentWindows:
        """The batch's windows."""
        return batch.windows
