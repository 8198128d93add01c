"""Samples for SyncNet: a window of frames paired with audio from the same or another time."""

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
    """Sampling of positive and negative pairs.

    Attributes:
        positive_prob: probability of a pair in sync.
        min_shift: minimum offset in frames between video and audio of a negative pair; 1 as published.
        near_negative_prob: probability that a negative pair's offset is drawn from ``near_shift``, so that small
            offsets are learned too; 0 as published.
        near_shift: smallest and largest near offset in frames.
        augmentation: of the frames; None disables it.
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
                f"min_shift and near_shift must be offsets of at least 1 frame, the smaller first; got "
                f"{self.min_shift} and {self.near_shift}."
            )

    def draw(self, mel_starts: int, starts: int, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a pair from one clip.

        Args:
            mel_starts: number of start frames with a complete mel window.
            starts: number of start frames with a complete frame window.
            rng: random generator.

        Returns:
            Start of the audio window and of the video window; equal if in sync.
        """
        audio_start = int(rng.integers(min(mel_starts, starts)))
        if rng.random() < self.positive_prob:
            return audio_start, audio_start
        return audio_start, self._negative_start(audio_start, starts, rng)

    def _negative_start(self, audio_start: int, starts: int, rng: np.random.Generator) -> int:
        """Draw a video start out of sync with the audio, with ``near_negative_prob`` a near one."""
        is_near = rng.random() < self.near_negative_prob
        nearest, farthest = self.near_shift
        near = _starts_within(audio_start, starts, max(nearest, self.min_shift), farthest)
        before, after = near if is_near and any(near) else _starts_within(audio_start, starts, self.min_shift, starts)
        position = int(rng.integers(len(before) + len(after)))
        return before[position] if position < len(before) else after[position - len(before)]


def _starts_within(start: int, starts: int, nearest: int, farthest: int) -> tuple[range, range]:
    """Starts in 0 ... ``starts - 1`` that are ``nearest`` to ``farthest`` frames before ``start``, and after it."""
    return (
        range(max(0, start - farthest), max(0, start - nearest + 1)),
        range(start + nearest, min(starts, start + farthest + 1)),
    )


class SyncNetDataset(ClipDataset[SyncNetBatch]):
    """Pairs from clips that are at least two windows long (longer if ``min_shift`` requires it).

    The audio window is drawn uniformly; the video window is the same one or, out of sync, another one of the clip.
    """

    def __init__(
        self, clips: Sequence[Path], options: ClipDatasetOptions | None = None, sampling: SyncNetSampling | None = None
    ) -> None:
        options = options or ClipDatasetOptions()
        self.sampling = sampling or SyncNetSampling()
        # Even for an audio window in the middle of the clip some video window must be far enough away.
        needed = options.num_frames + max(options.num_frames, 2 * self.sampling.min_shift)
        super().__init__(clips, options, needed)

    def collate(self, samples: Sequence[SyncNetBatch]) -> SyncNetBatch:
        """Collate samples into a batch."""
        return SyncNetBatch(
            frames=torch.cat([sample.frames for sample in samples]),
            mel=torch.cat([sample.mel for sample in samples]),
            labels=torch.cat([sample.labels for sample in samples]),
            shifts=torch.cat([sample.shifts for sample in samples]),
            clips=[clip for sample in samples for clip in sample.clips],
            sample_ids=torch.cat([sample.sample_ids for sample in samples]),
            problems=merge_problems([sample.problems for sample in samples]),
        )

    def _sample(self, clip: Path, attempt: SampleAttempt) -> SyncNetBatch:
        starts = self.inspector.require(clip).frames - self.options.num_frames + 1
        mel = self.reader.mel(clip)
        audio_start, start = self.sampling.draw(self._num_mel_starts(clip, mel, starts), starts, attempt.rng)
        frames = self.reader.windows(clip, [start], self.options.num_frames, self.options.resolution)[0]
        if self.sampling.augmentation is not None:
            frames = augment_window(frames, self.sampling.augmentation, attempt.rng)
        return SyncNetBatch(
            frames=rearrange(frames, "f c h w -> 1 f c h w"),
            mel=self._mel_window(clip, mel, audio_start),
            labels=torch.tensor([float(start == audio_start)]),
            shifts=as_int64(start - audio_start),
            clips=[str(clip)],
            sample_ids=as_int64(attempt.key.sample_id),
            problems=dict(attempt.problems),
        )
