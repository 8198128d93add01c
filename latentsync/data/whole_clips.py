"""Whole clips, prefetched by worker processes, for one-pass preprocessing of a data set."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.inspection import ClipInspector
from latentsync.data.workers import explain_worker_exit, worker_context


@dataclass(frozen=True)
class WholeClip:
    """A decoded clip, or the reason why it is unusable.

    Attributes:
        clip: its path.
        frames: (t, 3, R, R) uint8; empty if unusable.
        mel: (80, m) float32 SyncNet mel of the audio.
        mouth: (t, k) float32 mouth motion curves from the sidecar; (0, 0) if it has none.
        problem: why the clip is unusable; "" if it is usable.
    """

    clip: str
    frames: Tensor
    mel: Tensor
    mouth: Tensor
    problem: str = ""


class _Clips(Dataset[WholeClip]):
    def __init__(self, clips: Sequence[Path], resolution: int, inspector: ClipInspector, reader: ClipReader) -> None:
        self.clips, self.resolution, self.inspector, self.reader = list(clips), resolution, inspector, reader

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> WholeClip:
        clip = self.clips[index]
        try:
            length = self.inspector.require(clip).frames
            frames = self.reader.windows(clip, [0], length, self.resolution)[0]
            return WholeClip(str(clip), frames, self.reader.mel(clip), _read_mouth_curves(clip))
        except UnusableClip as error:
            return WholeClip(str(clip), torch.zeros(0), torch.zeros(0), torch.zeros(0, 0), error.reason)


def _read_mouth_curves(clip: Path) -> Tensor:
    """Read (t, k) mouth curves from a synthetic clip's sidecar; unrelated JSON files next to a clip are ignored."""
    sidecar = clip.with_suffix(".json")
    empty = torch.zeros(0, 0)
    try:
        content = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else None
        mouth = torch.tensor(content["mouth"], dtype=torch.float32) if isinstance(content, dict) else empty
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return empty
    return mouth if mouth.ndim == 2 else empty


def read_whole_clips(
    clips: Sequence[Path], resolution: int, inspector: ClipInspector, reader: ClipReader, workers: int
) -> Iterator[WholeClip]:
    """Yield every clip in the given order; unusable ones have a `problem`.

    Args:
        clips: their paths.
        resolution: side of the frames.
        inspector: decides which clips are usable.
        reader: reads the clips.
        workers: number of worker processes; 0 reads in this process.

    Raises:
        DataError: a worker was killed.
    """
    extra: dict[str, Any] = (
        {"num_workers": workers, "multiprocessing_context": worker_context("forkserver")} if workers else {}
    )
    dataset = _Clips(clips, resolution, inspector, reader)
    with explain_worker_exit():
        yield from DataLoader(
            dataset, batch_size=None, collate_fn=_identity_collate, generator=torch.Generator(), **extra
        )


def _identity_collate(clip: Any) -> Any:
    return clip
