"""Samples for SyncNet: a window of frames with the sound of that moment or of another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from latentsync.data.augmentation import FrameAugmentation, augment_window
from latentsync.data.clip_dataset import ClipDataset, ClipDatasetOptions, SampleAttempt, as_int64, merge_problems
from latentsync.data.sampling.samples import SyncNetBatch
from latentsync.errors import ConfigError


@dataclass(frozen=True)
class SyncNetSampling:
    """How pairs are made.

    Attributes:
        positive_prob: share of pairs in sync.
        min_shift: least distance in frames between picture and sound of a pair out of sync; 1 as published.
        near_negative_prob: share of the pairs out of sync whose distance is drawn from ``near_shift``, so that small
            offsets are learned too; 0 as published.
        near_shift: smallest and greatest such distance in frames.
        augmentation: changes to the frames; None leaves them as they are.
    """

    positive_prob: float = 0.5
    min_shift: int = 1
    near_negative_prob: float = 0.0
    near_shift: tuple[int, int] = (1, 5)
    augmentation: FrameAugmentation | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError on values out of range."""
        for name in ("positive_prob", "near_negative_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        if self.min_shift < 1 or not 1 <= self.near_shift[0] <= self.near_shift[1]:
            raise ConfigError(
                f"min_shift and near_shift are distances of 1 frame or more, the smaller first; got {self.min_shift} "
                f"and {self.near_shift}."
            )

    def draw(self, mel_starts: int, starts: int, rng: np.random.Generator) -> tuple[int, int]:
        """Choose a pair of one clip.

        Args:
            mel_starts: how many starts have a whole window of sound.
            starts: how many have a whole window of frames.
            rng: source of chance.

        Returns:
            Start of the sound and of the frames; equal where they are in sync.
        """
        sound_start = int(rng.integers(min(mel_starts, starts)))
        if rng.random() < self.positive_prob:
            return sound_start, sound_start
        return sound_start, self._other_start(sound_start, starts, rng)

    def _other_start(self, sound_start: int, starts: int, rng: np.random.Generator) -> int:
        """A start far enough from the sound's, for a share of the pairs a near one."""
        is_near = rng.random() < self.near_negative_prob
        nearest, farthest = self.near_shift
        near = _starts_within(sound_start, starts, max(nearest, self.min_shift), farthest)
        before, after = near if is_near and any(near) else _starts_within(sound_start, starts, self.min_shift, starts)
        position = int(rng.integers(len(before) + len(after)))
        return before[position] if position < len(before) else after[position - len(before)]


def _starts_within(start: int, starts: int, nearest: int, farthest: int) -> tuple[range, range]:
    """Those of the starts 0 ... ``starts - 1`` that lie so far before ``start``, and so far after it."""
    return (
        range(max(0, start - farthest), max(0, start - nearest + 1)),
        range(start + nearest, min(starts, start + farthest + 1)),
    )


class SyncNetDataset(ClipDataset[SyncNetBatch]):
    """Pairs from clips with two windows' length at least (more where ``min_shift`` needs it).

    The sound's window is drawn uniformly; the frames are of that window or, out of sync, of another one of the clip.
    """

    def __init__(
        self, clips: Sequence[Path], options: ClipDatasetOptions | None = None, sampling: SyncNetSampling | None = None
    ) -> None:
        options = options or ClipDatasetOptions()
        self.sampling = sampling or SyncNetSampling()
        # Round the middle of a clip, too, some window must be far enough away.
        needed = options.num_frames + max(options.num_frames, 2 * self.sampling.min_shift)
        super().__init__(clips, options, needed)

    def collate(self, samples: Sequence[SyncNetBatch]) -> SyncNetBatch:
        """Join samples."""
        return SyncNetBatch(
            frames=torch.cat([sample.frames for sample in samples]),
            mel=torch.cat([sample.mel for sample in samples]),
            labels=torch.cat([sample.labels for sample in samples]),
            shifts=torch.cat([sample.shifts for sample in samples]),
            clips=[clip for sample in samples for clip in sample.clips],
            sample_ids=torch.cat([sample.sample_ids for sample in samples]),
            problems=merge_problems([sample.problems for sample in samples]),
        )

    def _sample(self, clip: Path, draw: SampleAttempt) -> SyncNetBatch:
        starts = self.inspector.require(clip).frames - self.options.num_frames + 1
        mel = self.reader.mel(clip)
        sound_start, start = self.sampling.draw(self._num_mel_starts(clip, mel, starts), starts, draw.rng)
        frames = self.reader.windows(clip, [start], self.options.num_frames, self.options.resolution)[0]
        if self.sampling.augmentation is not None:
            frames = augment_window(frames, self.sampling.augmentation, draw.rng)
        return SyncNetBatch(
            frames=rearrange(frames, "f c h w -> 1 f c h w"),
            mel=self._mel_window(clip, mel, sound_start),
            labels=torch.tensor([float(start == sound_start)]),
            shifts=as_int64(start - sound_start),
            clips=[str(clip)],
            sample_ids=as_int64(draw.key.sample_id),
            problems=dict(draw.problems),
        )
