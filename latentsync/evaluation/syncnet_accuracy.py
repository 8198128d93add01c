"""Accuracy of a SyncNet on held-out clips: pairs in and out of sync, and shifted audio."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.syncnet_dataset import SyncNetDataset, SyncNetSampling
from latentsync.errors import DataError, MediaError
from latentsync.media.audio.syncnet_mel import SAMPLE_RATE, VIDEO_FPS, syncnet_mel
from latentsync.metrics.pair_accuracy import offset_accuracy, pair_accuracy, shift_audio
from latentsync.metrics.sync_conf import SyncMeter

logger = logging.getLogger(__name__)

_SHIFT_GROUPS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, None))


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated.

    Attributes:
        num_pairs: pairs, about half of them in sync.
        resolution: side of the input crops.
        min_shift: smallest distance in frames of a pair out of sync.
        largest_offset: largest shift of the audio in frames.
        seed: of pairs and shifts.
        batch_size: pairs read at once.
        workers: processes that read; 0 reads in this one.
    """

    num_pairs: int = 2048
    resolution: int = 256
    min_shift: int = 1
    largest_offset: int = 10
    seed: int = 42
    batch_size: int = 32
    workers: int = 0


@dataclass(frozen=True)
class JudgedPairs:
    """Scores (n,) in [0, 1], labels (n,) 1 = in sync, shifts (n,) in frames, and clips left out with the reason."""

    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.int64]
    problems: dict[str, str] = field(default_factory=dict)

    def metrics(self) -> dict[str, Any]:
        """Accuracy as `PairAccuracy` has it, and the fraction of right pairs at 0.5 by shift in frames."""
        right = (self.scores > 0.5) == (self.labels > 0.5)
        by_shift = {"0": float(right[self.shifts == 0].mean())}
        distance = np.abs(self.shifts)
        for low, high in _SHIFT_GROUPS:
            chosen = right[(distance >= low) & (distance <= (high or distance.max()))]
            if len(chosen):
                by_shift[f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"] = float(
                    chosen.mean()
                )
        return asdict(pair_accuracy(self.scores, self.labels)) | {"right_by_shift": by_shift}


@dataclass(frozen=True)
class JudgedOffsets:
    """True and found offsets (k,) in frames, confidence (k,) of each, and clips left out with the reason."""

    true: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    problems: dict[str, str] = field(default_factory=dict)

    def metrics(self) -> dict[str, Any]:
        """As `OffsetAccuracy` has it, and the mean confidence."""
        return asdict(offset_accuracy(self.true, self.found)) | {"mean_confidence": float(self.confidence.mean())}


def judge_pairs(meter: SyncMeter, clips: Sequence[Path], options: EvaluationOptions) -> JudgedPairs:
    """Score pairs of windows and sounds, the same ones at every call with the same clips and options.

    Raises:
        DataError: too many clips cannot be used.
    """
    windows = -(-(options.num_pairs + options.batch_size) // len(clips))
    dataset = SyncNetDataset(
        clips,
        ClipDatasetOptions(meter.num_frames, options.resolution, options.seed, windows),
        SyncNetSampling(min_shift=options.min_shift),
    )
    source = BatchLoader(dataset, LoaderOptions(options.batch_size, workers=options.workers))
    scores, labels, shifts, count = [], [], [], 0
    try:
        for batch in source.batches(0, 0):
            scores.append(meter.pair_cosines(batch.frames, batch.mel))
            labels.append(batch.labels)
            shifts.append(batch.shifts)
            count += len(batch.labels)
            logger.info("pairs: %d of %d", min(count, options.num_pairs), options.num_pairs)
            if count >= options.num_pairs:
                break
    finally:
        source.close()
    kept = slice(options.num_pairs)
    return JudgedPairs(
        torch.cat(scores)[kept].double().numpy(),
        torch.cat(labels)[kept].double().numpy(),
        torch.cat(shifts)[kept].numpy(),
        dict(source.problems()),
    )


def judge_offsets(meter: SyncMeter, clips: Sequence[Path], options: EvaluationOptions) -> JudgedOffsets:
    """Shift the sound of every clip by a random number of frames and let the network find it.

    The clips count as in sync as they are. A clip that is silent, damaged or too short is left out and reported.

    Raises:
        DataError: no clip can be used.
    """
    reader = ClipReader()
    true, found, confidence = [], [], []
    problems: dict[str, str] = {}
    for number, clip in enumerate(clips):
        rng = np.random.default_rng((options.seed, number))
        offset = int(rng.integers(-options.largest_offset, options.largest_offset + 1))
        try:
            frames = reader.windows(clip, [0], reader.num_frames(clip), options.resolution)[0]
            # Early sound is a positive offset.
            sound = shift_audio(reader.waveform(clip), -offset * SAMPLE_RATE // VIDEO_FPS)
            score = meter.score(frames, syncnet_mel(torch.from_numpy(sound)))
        except (UnusableClip, MediaError) as error:
            problems[str(clip)] = str(error)
            continue
        true.append(offset)
        found.append(score.av_offset)
        confidence.append(score.sync_conf)
        logger.info("offsets: clip %d of %d: %+d, found %+d", number + 1, len(clips), offset, score.av_offset)
    if not true:
        raise DataError(f"None of {len(clips)} clips could be judged; the last one: {list(problems.items())[-1]}")
    return JudgedOffsets(np.array(true), np.array(found), np.array(confidence), problems)
