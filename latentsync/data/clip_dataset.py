"""Base class of the clip data sets: selects the clip of each sample and retries with others if it is unusable."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.face_check import FaceCheck
from latentsync.data.clips.inspection import ClipInspector, ClipRules
from latentsync.data.sampling.epoch_sampler import EpochSampler
from latentsync.data.sampling.samples import SampleKey
from latentsync.data.sampling.seeding import sample_generator
from latentsync.errors import ConfigError, DataError
from latentsync.face.detection.detector import FaceDetector
from latentsync.media.audio.syncnet_mel import mel_window, num_mel_windows

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class ClipDatasetOptions:
    """Options common to all clip data sets.

    Attributes:
        num_frames: of a window.
        resolution: side of the frames; clips of another size are resized.
        seed: of the run.
        windows_per_clip: samples per clip and epoch.
        max_attempts: clips tried for one sample before the run is aborted; with half of the clips unusable, 32 failures
            in a row occur once in four billion samples.
        min_loudness: quieter clips count as silent, see `ClipRules`.
        check_faces: skip clips that show no face; requires mediapipe.
        mel_cache: cache folder for mel spectrograms; None recomputes them each time.
        clip_info_cache: cache folder for `ClipInfo`; None keeps it for this run only.
        make_face_detector: factory of a face detector to use instead of MediaPipe.
    """

    num_frames: int = 16
    resolution: int = 256
    seed: int = 1247
    windows_per_clip: int = 1
    max_attempts: int = 32
    min_loudness: float = 1e-3
    check_faces: bool = False
    mel_cache: Path | None = None
    clip_info_cache: Path | None = None
    make_face_detector: Callable[[], FaceDetector] | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError on a value out of range."""
        for name in ("num_frames", "resolution", "windows_per_clip", "max_attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}.")


@dataclass
class SampleAttempt:
    """One attempt at a sample: its key, its random generator, and the problems of earlier attempts."""

    key: SampleKey
    rng: np.random.Generator
    problems: dict[str, str] = field(default_factory=dict)


class ClipDataset(Dataset[BatchT], ABC, Generic[BatchT]):
    """Samples by `SampleKey`: the same key gives the same sample, in any process and order.

    An unusable clip is replaced by another one, determined by the key and the attempt number; the sample's ``problems``
    give the reason.

    Args:
        clips: paths of the clips.
        options: see `ClipDatasetOptions`.
        min_clip_frames: minimum length of a clip in frames.

    Raises:
        DataError: `clips` is empty.
        DependencyError: faces are to be checked but mediapipe is not installed.
    """

    def __init__(self, clips: Sequence[Path], options: ClipDatasetOptions, min_clip_frames: int) -> None:
        if not clips:
            raise DataError("No training clips: the list is empty. Give a list file or folder with clips.")
        self.clips, self.options = [Path(clip) for clip in clips], options
        self.order = EpochSampler(len(clips), options.windows_per_clip, options.seed)
        self.reader = ClipReader(options.mel_cache)
        rules = ClipRules(min_clip_frames, options.min_loudness, options.check_faces)
        faces = FaceCheck(options.make_face_detector)
        if options.check_faces:
            faces.check_available()
        self.inspector = ClipInspector(self.reader, rules, options.clip_info_cache, faces)

    def __len__(self) -> int:
        """Number of samples in an epoch."""
        return len(self.order)

    def __getitem__(self, key: SampleKey) -> BatchT:
        """Return a batch of one sample.

        Raises:
            DataError: ``max_attempts`` clips, or all clips, are unusable.
        """
        problems: dict[str, str] = {}
        tried: set[int] = set()
        while len(tried) < min(self.options.max_attempts, len(self.clips)):
            rng = sample_generator(self.options.seed, key.epoch, key.index, len(tried))
            clip_index = int(rng.integers(len(self.clips))) if tried else self.order.clip_index(key.epoch, key.index)
            while clip_index in tried:
                clip_index = (clip_index + 1) % len(self.clips)
            tried.add(clip_index)
            try:
                return self._sample(self.clips[clip_index], SampleAttempt(key, rng, problems))
            except UnusableClip as error:
                problems[str(error.clip)] = error.reason
        raise DataError(
            f"{len(tried)} clips were tried for one sample, but none is usable; the last ones:\n"
            f"{last_problems(problems)}\n"
            "Remove such clips from the list, or check that the folder is correct."
        )

    @abstractmethod
    def collate(self, samples: Sequence[BatchT]) -> BatchT:
        """Collate samples into a batch."""

    @abstractmethod
    def _sample(self, clip: Path, attempt: SampleAttempt) -> BatchT:
        """Draw a sample from a clip; raises UnusableClip."""

    def _num_mel_starts(self, clip: Path, mel: Tensor, starts: int) -> int:
        """Number of the start frames 0 ... starts - 1 with a complete mel window; raises UnusableClip if zero."""
        count = min(starts, num_mel_windows(mel.shape[1], self.options.num_frames))
        if count < 1:
            raise UnusableClip(clip, f"its audio is shorter than a window of {self.options.num_frames} frames")
        return count

    def _mel_window(self, clip: Path, mel: Tensor, start: int) -> Tensor:
        """(1, 1, 80, m) mel of a window; raises UnusableClip if the audio ends before the window."""
        window = mel_window(mel, start, self.options.num_frames)
        if window is None:
            raise UnusableClip(clip, f"its audio ends before the end of the window at frame {start}")
        return rearrange(window, "bands m -> 1 1 bands m").contiguous()


def as_int64(value: int) -> Tensor:
    """Wrap an integer as a (1,) int64 tensor."""
    return torch.tensor([value], dtype=torch.int64)


def last_problems(problems: Mapping[str, str], count: int = 5) -> str:
    """The last few unusable clips and why, one on each line."""
    return "\n".join(f"  {clip}: {reason}" for clip, reason in list(problems.items())[-count:])


def merge_problems(problems: Sequence[dict[str, str]]) -> dict[str, str]:
    """Merge the problems of several samples into one mapping."""
    return {clip: reason for part in problems for clip, reason in part.items()}
