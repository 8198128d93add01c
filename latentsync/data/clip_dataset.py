"""What the two data sets share: which clip a sample takes, and what happens when it cannot be used."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """What every data set of clips needs to know.

    Attributes:
        num_frames: of a window.
        resolution: side of the frames; clips of another size are resized.
        seed: of the run.
        windows_per_clip: samples of each clip in an epoch.
        max_attempts: clips that are tried for one sample before the run is stopped; with half of the clips bad, 32
            are reached once in four thousand million samples.
        min_loudness: clips that are quieter count as silent, see `ClipRules`.
        check_faces: leave out clips that show no face; needs mediapipe.
        mel_cache: folder for mel spectrograms; None makes them anew each time.
        clip_info_cache: folder for what was found out about clips; None forgets it after the run.
        make_face_detector: builds another detector than MediaPipe's.
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
    """One attempt at a sample: its name, its source of chance, and what went wrong before."""

    key: SampleKey
    rng: np.random.Generator
    problems: dict[str, str] = field(default_factory=dict)


class ClipDataset(Dataset[BatchT], ABC, Generic[BatchT]):
    """Samples by `SampleKey`: the same key gives the same sample, in whichever process and order.

    A clip that cannot be used makes room for another one, chosen by the key and the number of the attempt; the sample's
    ``problems`` say why.

    Args:
        clips: their paths.
        options: see `ClipDatasetOptions`.
        min_clip_frames: frames that a clip must have.

    Raises:
        DataError: there are no clips.
        DependencyError: faces are to be checked and mediapipe is not installed.
    """

    def __init__(self, clips: Sequence[Path], options: ClipDatasetOptions, min_clip_frames: int) -> None:
        if not clips:
            raise DataError("No training clips are given: the list is empty.")
        self.clips, self.options = [Path(clip) for clip in clips], options
        self.order = EpochSampler(len(clips), options.windows_per_clip, options.seed)
        self.reader = ClipReader(options.mel_cache)
        rules = ClipRules(min_clip_frames, options.min_loudness, options.check_faces)
        faces = FaceCheck(options.make_face_detector)
        if options.check_faces:
            faces.check_available()
        self.inspector = ClipInspector(self.reader, rules, options.clip_info_cache, faces)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.order)

    def __getitem__(self, key: SampleKey) -> BatchT:
        """A batch of one sample.

        Raises:
            DataError: ``max_attempts`` clips, or all there are, cannot be used.
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
        listed = "\n".join(f"  {clip}: {reason}" for clip, reason in list(problems.items())[-5:])
        raise DataError(
            f"{len(tried)} clips were tried for one sample and none could be used; the last ones:\n{listed}\n"
            "Leave such clips out of the list, or check that the right folder was given."
        )

    @abstractmethod
    def collate(self, samples: Sequence[BatchT]) -> BatchT:
        """Join samples to a batch."""

    @abstractmethod
    def _sample(self, clip: Path, draw: SampleAttempt) -> BatchT:
        """Make a sample of a clip; raises UnusableClip."""

    def _num_mel_starts(self, clip: Path, mel: Tensor, starts: int) -> int:
        """How many of the starts 0 ... starts - 1 have a whole window of sound; raises UnusableClip if none has."""
        count = min(starts, num_mel_windows(mel.shape[1], self.options.num_frames))
        if count < 1:
            raise UnusableClip(clip, f"its sound is shorter than a window of {self.options.num_frames} frames")
        return count

    def _mel_window(self, clip: Path, mel: Tensor, start: int) -> Tensor:
        """(1, 1, 80, m) columns of a window; raises UnusableClip where the sound ends before it."""
        window = mel_window(mel, start, self.options.num_frames)
        if window is None:
            raise UnusableClip(clip, f"its sound ends before the window at frame {start} does")
        return rearrange(window, "bands m -> 1 1 bands m").contiguous()


def as_int64(value: int) -> Tensor:
    """(1,) int64."""
    return torch.tensor([value], dtype=torch.int64)


def merge_problems(problems: Sequence[dict[str, str]]) -> dict[str, str]:
    """All of them in one mapping."""
    return {clip: reason for part in problems for clip, reason in part.items()}
