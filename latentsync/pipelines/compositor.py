"""Groups aligned frames into windows, has their faces made, and puts the faces back into the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from latentsync.face.restore import FaceRestorer
from latentsync.face.warp import warp_faces
from latentsync.pipelines.align import AlignedFrame
from latentsync.pipelines.generator import FaceGenerator
from latentsync.pipelines.memory import release_freed_memory
from latentsync.pipelines.windows import Window
from latentsync.profiling import StageClock

# Whole pictures handled at once: more would only cost memory.
_BATCH = 4


@dataclass(frozen=True)
class FinishedFrame:
    """An output frame, ready to be written.

    Attributes:
        index: output frame.
        source: (H, W, 3) uint8 RGB as it came.
        pixels: (H, W, 3) uint8 RGB as it goes out; the same array as `source` where nothing was generated.
        reason: anything odd about the frame.
    """

    index: int
    source: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    reason: str | None

    @property
    def generated(self) -> bool:
        """Whether the frame carries a new mouth."""
        return self.pixels is not self.source


@dataclass
class _Pending:
    """A frame between its window and the writer; `face` (3, R, R) uint8 and `code` are None without a usable face."""

    frame: AlignedFrame
    face: Tensor | None = None
    code: Tensor | None = None


class Compositor:
    """Runs the device's part of the pipeline over a stream of aligned frames, holding about two windows of them."""

    def __init__(
        self, generator: FaceGenerator, restorer: FaceRestorer, device: torch.device, clock: StageClock
    ) -> None:
        self._generator, self._restorer = generator, restorer
        self._device, self._clock = device, clock
        self._pending: dict[int, _Pending] = {}
        self._next_in = 0
        self._next_out = 0

    def run(
        self, frames: Iterable[AlignedFrame], windows: Sequence[Window], audio: Callable[[Window], Tensor]
    ) -> Iterator[FinishedFrame]:
        """Make the new faces.

        Args:
            frames: aligned frames in order from output frame 0, at least up to the last window's end.
            windows: the plan, see `plan_windows`.
            audio: window -> (f, 50, d) audio windows of its slots.

        Yields:
            Every frame in order.
        """
        stream = iter(frames)
        for window, following in zip_longest(windows, windows[1:]):
            self._admit(stream, window.stop)
            self._sample(window, audio)
            if following is None:
                yield from self._finish(window.stop)
                return
            # Frames that the next window cross-fades are not final yet; those it only looks back at are.
            yield from self._finish(following.start + following.new_from - following.blend)
            self._pending = {index: entry for index, entry in self._pending.items() if index >= following.start}
            release_freed_memory()

    def _admit(self, stream: Iterator[AlignedFrame], stop: int) -> None:
        """Take frames from the stream up to `stop` and cut out their faces."""
        fresh = [_Pending(frame) for frame in islice(stream, stop - self._next_in)]
        self._pending.update((entry.frame.index, entry) for entry in fresh)
        self._next_in = stop
        for batch in _batches([entry for entry in fresh if entry.frame.face.matrix is not None]):
            with self._clock.on_device("align"):
                matrices = torch.from_numpy(_matrices(batch)).to(self._device)
                faces = warp_faces(self._pictures(batch), matrices, self._generator.resolution)
            for entry, face in zip(batch, faces, strict=True):
                entry.face = face

    def _sample(self, window: Window, audio: Callable[[Window], Tensor]) -> None:
        """Generate the window's codes and merge them into the pending frames."""
        entries = [self._pending[index] for index in window.indices]
        if all(entry.face is None for entry in entries[window.new_from :]):
            return
        with self._clock.on_device("audio"):
            audio_windows = audio(window)
        faces, shown = _faces_with_gaps_filled(entries)
        codes = self._generator.sample(faces, audio_windows, shown)
        for slot, (entry, code) in enumerate(zip(entries, codes, strict=True)):
            fade = window.fade_in(slot)
            if entry.code is None:
                entry.code = code
            elif fade > 0 and slot < window.new_from:
                entry.code = torch.lerp(entry.code, code, fade)

    def _finish(self, stop: int) -> Iterator[FinishedFrame]:
        """Decode and paste the frames up to `stop`, and let them go."""
        entries = [self._pending[index] for index in range(self._next_out, stop)]
        self._next_out = stop
        made = [entry for entry in entries if entry.face is not None and entry.frame.face.weight > 0]
        pictures = self._restore(made)
        for entry in entries:
            frame = entry.frame
            generated = entry.face is not None and frame.face.weight > 0
            yield FinishedFrame(
                frame.index, frame.pixels, next(pictures) if generated else frame.pixels, frame.face.reason
            )

    def _restore(self, entries: list[_Pending]) -> Iterator[NDArray[np.uint8]]:
        """Decode the entries' faces together, then paste them a few frames at a time."""
        if not entries:
            return
        faces = torch.stack([entry.face for entry in entries if entry.face is not None])
        codes = torch.stack([entry.code for entry in entries if entry.code is not None])
        decoded = self._generator.decode(codes, faces).float().split(_BATCH)
        for batch, new_faces in zip(_batches(entries), decoded, strict=True):
            weights = np.array([entry.frame.face.weight for entry in batch], np.float32)
            with self._clock.on_device("restore"):
                restored = self._restorer.restore(
                    self._pictures(batch), new_faces, _matrices(batch), weights, inplace=True
                )
                pictures = rearrange(restored, "f c h w -> f h w c").contiguous().cpu().numpy()
            yield from pictures

    def _pictures(self, entries: list[_Pending]) -> Tensor:
        """Stack frames on the device: (n, 3, H, W) uint8, a copy."""
        stacked = torch.from_numpy(np.stack([entry.frame.pixels for entry in entries]))
        return rearrange(stacked.to(self._device), "f h w c -> f c h w")


def _batches(entries: list[_Pending]) -> list[list[_Pending]]:
    return [entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH)]


def _matrices(entries: list[_Pending]) -> NDArray[np.float32]:
    """Stack image-to-crop matrices: (n, 2, 3), on the host, where regions of interest are computed."""
    return np.stack([entry.frame.face.matrix for entry in entries if entry.frame.face.matrix is not None])


def _faces_with_gaps_filled(entries: list[_Pending]) -> tuple[Tensor, list[int]]:
    """(f, 3, R, R) and the frame each is of; a slot without a face shows the nearest, as slots act on each other."""
    have = [slot for slot, entry in enumerate(entries) if entry.face is not None]
    chosen = [entries[min(have, key=lambda other: abs(other - slot))] for slot in range(len(entries))]
    return torch.stack([entry.face for entry in chosen if entry.face is not None]), [e.frame.index for e in chosen]
