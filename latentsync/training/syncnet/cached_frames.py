"""Training a SyncNet on frames that are read once: for a small network, reading is far dearer than the step itself."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from latentsync.data.clip_dataset import last_problems
from latentsync.data.fixed_set import fixed_keys
from latentsync.data.sampling.epoch_sampler import BatchPartition, EpochSampler
from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.data.sampling.samples import SampleKey, SyncNetBatch
from latentsync.data.sampling.seeding import sample_generator
from latentsync.data.syncnet_dataset import SyncNetSampling
from latentsync.data.whole_clips import WholeClip
from latentsync.errors import DataError
from latentsync.media.audio.syncnet_mel import mel_window, num_mel_windows

logger = logging.getLogger(__name__)

_AUGMENT_PROB = 0.8
# Greatest changes, for pixels in [-1, 1]; the tint is that of each colour by itself.
_BRIGHTNESS, _CONTRAST, _TINT, _TRANSLATION, _NOISE = 0.2, 0.2, 0.15, 0.06, 0.04


class FrameCache:
    """All clips of a data set in memory.

    Args:
        device: where they are kept: 3 R^2 bytes a frame.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.frames: list[Tensor] = []
        self.mels: list[Tensor] = []
        self.mouths: list[Tensor] = []
        self.names: list[str] = []
        self.problems: dict[str, str] = {}

    def fill(self, clips: Iterator[WholeClip], count: int) -> None:
        """Keep ``count`` clips; those that cannot be used go to ``problems``.

        Raises:
            DataError: none can be used.
        """
        quiet = not logger.isEnabledFor(logging.INFO)
        for clip in tqdm(clips, total=count, desc="reading clips", unit="clip", disable=quiet):
            if clip.problem:
                logger.warning("clip left out: %s: %s", clip.clip, clip.problem)
                self.problems[clip.clip] = clip.problem
                continue
            # Copied on a CPU too: what a reading process hands over holds a file open each.
            frames, mel, mouth = (each.to(self.device, copy=True) for each in (clip.frames, clip.mel, clip.mouth))
            self.frames.append(frames)
            self.mels.append(mel)
            self.mouths.append(mouth)
            self.names.append(clip.clip)
        if not self.names:
            raise DataError(
                f"None of the {count} clips can be used; the last ones:\n{last_problems(self.problems)}\n"
                "Check that the right folder was given."
            )


@dataclass(frozen=True)
class FrameSampling:
    """How pairs are drawn from a `FrameCache`.

    Attributes:
        pairs: which shifts.
        num_frames: f of a window.
        windows_per_clip: pairs of each clip in an epoch.
        seed: of everything that is drawn.
    """

    pairs: SyncNetSampling
    num_frames: int = 16
    windows_per_clip: int = 1
    seed: int = 42


class CachedFrameSource:
    """See `BatchSource`; pairs are drawn as `latentsync.data.syncnet_dataset.SyncNetDataset` does.

    Args:
        store: filled.
        sampling: see there.
        batch_size: pairs of one step over all processes.
        rank, world_size: of this process.
    """

    def __init__(
        self, store: FrameCache, sampling: FrameSampling, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.store, self.sampling = store, sampling
        self.order = EpochSampler(len(store.names), sampling.windows_per_clip, sampling.seed)
        self.partition = BatchPartition(len(self.order), batch_size, rank, world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.partition.steps

    def batches(self, epoch: int, first: int) -> Iterator[SyncNetBatch]:
        """The epoch's batches from number ``first`` on."""
        for positions in self.partition.batches(first):
            yield self._batch([self.order.key(epoch, position) for position in positions])

    def fixed(self, batch_size: int, count: int) -> list[SyncNetBatch]:
        """The batches of a validation, see `latentsync.data.fixed_set.FixedSet`."""
        return [self._batch(fixed_keys(self.order, batch_size, position)) for position in range(count)]

    def problems(self) -> Mapping[str, str]:
        """Clips that could not be used when the store was filled."""
        return self.store.problems

    def close(self) -> None:
        """Nothing to end."""

    def _batch(self, keys: Sequence[SampleKey]) -> SyncNetBatch:
        # A small network takes hundreds of pairs in some milliseconds: nothing here may cost much for a single pair.
        pairs = [self._drawn(key) for key in keys]
        store = self.store
        shifts = torch.tensor([pair.start - pair.sound_start for pair in pairs])
        has_mouth = all(len(store.mouths[pair.clip]) >= len(store.frames[pair.clip]) for pair in pairs)
        return SyncNetBatch(
            frames=self._cut(store.frames, pairs),
            mel=rearrange(torch.stack([self._mel(pair) for pair in pairs]), "b mels m -> b 1 mels m"),
            labels=(shifts == 0).float(),
            shifts=shifts,
            clips=[store.names[pair.clip] for pair in pairs],
            sample_ids=torch.tensor([key.sample_id for key in keys]),
            problems={},
            # The sound of a clip may end before its last frames, and what the mouth does with it.
            video_mouth_curves=self._cut(store.mouths, pairs) if has_mouth else None,
            audio_mouth_curves=self._cut(store.mouths, pairs, audio_starts=True) if has_mouth else None,
        )

    def _drawn(self, key: SampleKey) -> "_Pair":
        rng = sample_generator(self.sampling.seed, key.epoch, key.index, 0)
        clip, length = self.order.clip_index(key.epoch, key.index), self.sampling.num_frames
        audio_starts = num_mel_windows(self.store.mels[clip].shape[1], length)
        return _Pair(clip, *self.sampling.pairs.draw(audio_starts, len(self.store.frames[clip]) - length + 1, rng))

    def _cut(self, tracks: Sequence[Tensor], pairs: Sequence["_Pair"], audio_starts: bool = False) -> Tensor:
        """Windows (b, f, ...) of the tracks (t, ...), where the pairs' frames are or where their sound is."""
        starts = (pair.sound_start if audio_starts else pair.start for pair in pairs)
        length = self.sampling.num_frames
        return torch.stack([tracks[pair.clip][start : start + length] for pair, start in zip(pairs, starts)])

    def _mel(self, pair: "_Pair") -> Tensor:
        window = mel_window(self.store.mels[pair.clip], pair.sound_start, self.sampling.num_frames)
        assert window is not None  # the draw is from starts that have one
        return window


class _Pair(NamedTuple):
    """Number of a clip, and where the sound and the frames start in it."""

    clip: int
    sound_start: int
    start: int


def augment_windows(pixels: Tensor, rng: SampleRng) -> Tensor:
    """Light changes that say nothing of the mouth, alike for all frames of a window, to four in five windows.

    Args:
        pixels: (b, f, 3, h, w) in [-1, 1].
        rng: of the batch.

    Returns:
        The same shape: flipped, shifted, blurred, with other brightness, color and contrast, and a fixed noise pattern.
    """

    def drawn(low: float, high: float) -> Tensor:
        return rearrange(low + (high - low) * rng.uniform(), "b -> b 1 1 1")

    image = rearrange(pixels, "b f c h w -> b (f c) h w")
    changed = torch.where(drawn(-1, 1) < 0, image, image.flip(-1))
    changed = _shifted(changed, rng)
    changed = torch.lerp(changed, F.avg_pool2d(changed, 3, 1, 1, count_include_pad=False), drawn(0, 1))
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    changed = (changed - mean) * drawn(1 - _CONTRAST, 1 + _CONTRAST) + mean + drawn(-_BRIGHTNESS, _BRIGHTNESS)
    tint = torch.cat([drawn(-_TINT, _TINT) for _ in range(3)], dim=1)
    changed = changed + tint.repeat(1, pixels.shape[1], 1, 1)
    changed = changed + drawn(0, _NOISE) * rng.normal((1, *image.shape[-2:]))
    keep = rearrange(rng.uniform() >= _AUGMENT_PROB, "b -> b 1 1 1")
    return torch.where(keep, image, changed.clamp(-1, 1)).reshape(pixels.shape)


def _shifted(image: Tensor, rng: SampleRng) -> Tensor:
    """Shift each image (b, c, h, w) by up to ``_TRANSLATION`` of its half side; the border repeats."""
    theta = torch.eye(2, 3, device=image.device).repeat(len(image), 1, 1)
    theta[:, 0, 2] = _TRANSLATION * (2 * rng.uniform() - 1)
    theta[:, 1, 2] = _TRANSLATION * (2 * rng.uniform() - 1)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
