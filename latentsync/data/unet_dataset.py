"""Samples for the lip-sync U-Net: the target faces, the faces that are masked, and a reference window."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange

from latentsync.data.clip_dataset import ClipDataset, ClipDatasetOptions, SampleAttempt, as_int64, merge_problems
from latentsync.data.clips.paired_takes import other_take
from latentsync.data.sampling.samples import UNetBatch
from latentsync.errors import ConfigError
from latentsync.media.audio.syncnet_mel import N_MELS

_MIN_WINDOWS = 3


@dataclass(frozen=True)
class UNetSampling:
    """Sampling of windows.

    Attributes:
        with_mel: load the SyncNet mel of the window.
        paired_takes: if a clip's sidecar names another take of the same scene, use that take as the masked source and
            the reference, so that the lips in the input differ from the target as they do at inference.
        ref_same_prob: probability that the reference is the masked window itself, as at inference; 0 as published.
    """

    with_mel: bool = False
    paired_takes: bool = False
    ref_same_prob: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError if ref_same_prob is not a probability."""
        if not 0 <= self.ref_same_prob <= 1:
            raise ConfigError(f"ref_same_prob must be between 0 and 1, got {self.ref_same_prob}.")


class UNetDataset(ClipDataset[UNetBatch]):
    """Windows from clips that are at least three windows long.

    The target window is drawn uniformly, the reference uniformly from the windows that do not overlap it.
    """

    def __init__(
        self, clips: Sequence[Path], options: ClipDatasetOptions | None = None, sampling: UNetSampling | None = None
    ) -> None:
        options = options or ClipDatasetOptions()
        super().__init__(clips, options, _MIN_WINDOWS * options.num_frames)
        self.sampling = sampling or UNetSampling()

    def collate(self, samples: Sequence[UNetBatch]) -> UNetBatch:
        """Collate samples into a batch; without paired takes ``source_frames`` is the same tensor as ``gt_frames``."""
        gt_frames = torch.cat([sample.gt_frames for sample in samples])
        has_takes = any(sample.source_frames is not sample.gt_frames for sample in samples)
        return UNetBatch(
            gt_frames=gt_frames,
            source_frames=torch.cat([sample.source_frames for sample in samples]) if has_takes else gt_frames,
            ref_frames=torch.cat([sample.ref_frames for sample in samples]),
            mel=torch.cat([sample.mel for sample in samples]),
            clips=[clip for sample in samples for clip in sample.clips],
            starts=torch.cat([sample.starts for sample in samples]),
            sample_ids=torch.cat([sample.sample_ids for sample in samples]),
            problems=merge_problems([sample.problems for sample in samples]),
        )

    def _sample(self, clip: Path, attempt: SampleAttempt) -> UNetBatch:
        window, resolution = self.options.num_frames, self.options.resolution
        source = other_take(clip) if self.sampling.paired_takes else clip
        length = self.inspector.require(clip).frames
        source_length = self.inspector.require(source).frames if source != clip else length
        starts, mel = min(length, source_length) - window + 1, None
        if self.sampling.with_mel:
            mel = self.reader.mel(clip)
            starts = self._num_mel_starts(clip, mel, starts)
        start = int(attempt.rng.integers(starts))
        ref_start = self._reference_start(start, source_length, attempt)
        # The window and its reference are decoded with one opening of the source.
        source_frames, ref_frames = self.reader.windows(source, [start, ref_start], window, resolution)
        gt_frames = self.reader.windows(clip, [start], window, resolution)[0] if source != clip else source_frames
        batched = rearrange(gt_frames, "f c h w -> 1 f c h w")
        return UNetBatch(
            gt_frames=batched,
            source_frames=batched if source == clip else rearrange(source_frames, "f c h w -> 1 f c h w"),
            ref_frames=rearrange(ref_frames, "f c h w -> 1 f c h w"),
            mel=torch.zeros(1, 1, N_MELS, 0) if mel is None else self._mel_window(clip, mel, start),
            clips=[str(clip)],
            starts=as_int64(start),
            sample_ids=as_int64(attempt.key.sample_id),
            problems=dict(attempt.problems),
        )

    def _reference_start(self, start: int, length: int, attempt: SampleAttempt) -> int:
        """Uniform over the starts at least one window away, or ``start`` itself with ``ref_same_prob``."""
        window = self.options.num_frames
        is_same = attempt.rng.random() < self.sampling.ref_same_prob
        before = max(0, start - window + 1)
        after = max(0, length - window + 1 - (start + window))
        pick = int(attempt.rng.integers(before + after))
        if is_same:
            return start
        return pick if pick < before else start + window + pick - before
