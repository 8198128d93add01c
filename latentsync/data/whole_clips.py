"""Whole clips, read ahead by worker processes, for what is made of every clip once."""

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
    """A clip, or why it cannot be used.

    Attributes:
        clip: its path.
        frames: (t, 3, R, R) uint8; no frames where it cannot be used.
        mel: (80, m) float32 SyncNet mel of its sound.
        mouth: (t, k) float32 what the mouth does, where a sidecar says so; else (0, 0).
        problem: why it cannot be used; "" where it can.
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
            return WholeClip(str(clip), frames, self.reader.mel(clip), _mouth(clip))
        except UnusableClip as error:
            return WholeClip(str(clip), torch.zeros(0), torch.zeros(0), torch.zeros(0, 0), error.reason)


def _mouth(clip: Path) -> Tensor:
    """(t, k) of a made clip's sidecar; other people's files beside a clip may hold anything."""
    sidecar = clip.with_suffix(".json")
    nothing = torch.zeros(0, 0)
    try:
        content = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else None
        mouth = torch.tensor(content["mouth"], dtype=torch.float32) if isinstance(content, dict) else nothing
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return nothing
    return mouth if mouth.ndim == 2 else nothing


def read_whole_clips(
    clips: Sequence[Path], resolution: int, inspector: ClipInspector, reader: ClipReader, workers: int
) -> Iterator[WholeClip]:
    """Every clip in the given order, those that cannot be used with their reason.

    Args:
        clips: their paths.
        resolution: side of the frames.
        inspector: knows which clips can be used.
        reader: reads them.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        DataError: a worker was ended from outside.
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
