"""Groups aligned frames into windows, has their faces made, and puts the faces back into the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from latentsync.face.compositing.restore import FaceRestorer
from latentsync.face.geometry.patches import Patches
from latentsync.face.geometry.warp import crop_boxes, warp_patches
from latentsync.pipelines.align import AlignedFrame
from latentsync.pipelines.generator import FaceGenerator, WindowInput
from latentsync.pipelines.output_frame import OutputFrame, RegionDownload
from latentsync.pipelines.windows import Window
from latentsync.profiling import StageClock
from latentsync.runtime.allocator import release_freed_memory

# What is released has to be mapped and cleared again when it is needed next.
_WINDOWS_BETWEEN_RELEASES = 8


@dataclass(frozen=True)
class _FaceCrop:
    """A frame's part of what was uploaded.

    Attributes:
        face: (3, R, R) uint8, aligned.
        patches: the faces' neighbourhoods, among them this frame's.
        index: its place in them.
    """

    face: Tensor
    patches: Patches
    index: int


@dataclass
class _Pending:
    """A frame between its window and the writer; `crop` and `code` are None without a usable face."""

    frame: AlignedFrame
    crop: _FaceCrop | None = None
    code: Tensor | None = None

    @property
    def generated(self) -> bool:
        """Whether the frame is to carry a new mouth."""
        return self.crop is not None and self.frame.face.weight > 0


class Compositor:
    """Runs the device's part of the pipeline over a stream of aligned frames.

    It holds about one window of frames more than the generator takes at once. On CUDA nothing here waits for the
    device: work is queued, and whoever reads a finished frame's pixels waits for them.
    """

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
    ) -> Iterator[OutputFrame]:
        """Make the new faces.

        Args:
            frames: aligned frames in order from output frame 0, at least up to the last window's end.
            windows: the plan, see `plan_windows`.
            audio: window -> (f, 50, d) audio windows of its slots.

        Yields:
            Every frame in order.
        """
        stream = iter(frames)
        step = self._generator.window_batch_size
        for first in range(0, len(windows), step):
            group = windows[first : first + step]
            self._admit(stream, group[-1].stop)
            self._sample(group, audio)
            if first + step >= len(windows):
                yield from self._finish(group[-1].stop)
                return
            following = windows[first + step]
            # Frames that the next window cross-fades are not final yet; those it only looks back at are.
            yield from self._finish(following.start + following.new_start - following.blend)
            self._pending = {index: entry for index, entry in self._pending.items() if index >= following.start}
            if first // step % _WINDOWS_BETWEEN_RELEASES == 0:
                release_freed_memory()

    def _admit(self, stream: Iterator[AlignedFrame], stop: int) -> None:
        """Take frames from the stream up to `stop` and cut out their faces."""
        fresh = [_Pending(frame) for frame in islice(stream, stop - self._next_in)]
        self._pending.update((entry.frame.index, entry) for entry in fresh)
        self._next_in = stop
        detected = [entry for entry in fresh if entry.frame.face.matrix is not None]
        if not detected:
            return
        with self._clock.on_device("align"):
            matrices, resolution = _matrices(detected), self._generator.resolution
            frame_size = _frame_size(detected)
            # What the paste will need goes with it, so that pixels travel once.
            boxes = crop_boxes(matrices, resolution, frame_size).union(self._restorer.regions(matrices, frame_size))
            patches = Patches.upload([entry.frame.pixels for entry in detected], boxes, self._device)
            faces = warp_patches(patches, matrices, resolution)
        for index, (entry, face) in enumerate(zip(detected, faces, strict=True)):
            entry.crop = _FaceCrop(face, patches, index)

    def _sample(self, windows: Sequence[Window], audio: Callable[[Window], Tensor]) -> None:
        """Generate the codes of windows together and merge them, one after the other, into the pending frames."""
        needed, inputs = [], []
        for window in windows:
            entries = [self._pending[index] for index in window.indices]
            if not any(entry.generated for entry in entries[window.new_start :]):
                continue
            with self._clock.on_device("audio"):
                audio_windows = audio(window)
            needed.append((window, entries))
            inputs.append(_window_input(entries, audio_windows))
        if not needed:
            return
        for (window, entries), codes in zip(needed, self._generator.sample_windows(inputs), strict=True):
            _merge(window, entries, codes)

    def _finish(self, stop: int) -> Iterator[OutputFrame]:
        """Decode and paste the frames up to `stop`, and let them go."""
        entries = [self._pending[index] for index in range(self._next_out, stop)]
        self._next_out = stop
        generated = [entry for entry in entries if entry.generated]
        face_regions = iter(self._restore(generated))
        for entry in entries:
            frame = entry.frame
            face_region = next(face_regions) if entry.generated else None
            yield OutputFrame(frame.index, frame.pixels, frame.face.reason, face_region)

    def _restore(self, entries: list[_Pending]) -> list[tuple[RegionDownload, int]]:
        """Decode the entries' faces together, paste them into their neighbourhoods and send these to the host."""
        if not entries:
            return []
        crops = [entry.crop for entry in entries if entry.crop is not None]
        codes = torch.stack([entry.code for entry in entries if entry.code is not None])
        decoded = self._generator.decode(codes, torch.stack([crop.face for crop in crops])).float()
        with self._clock.on_device("restore"):
            matrices = _matrices(entries)
            weights = np.array([entry.frame.face.weight for entry in entries], np.float32)
            regions = self._restorer.regions(matrices, _frame_size(entries))
            sources = [
                rearrange(crop.patches.crop(crop.index, regions, position), "h w c -> c h w")
                for position, crop in enumerate(crops)
            ]
            result = Patches.empty(regions, self._device)
            for position, pasted in enumerate(self._restorer.paste(sources, decoded, matrices, weights, regions)):
                result.image(position).copy_(rearrange(pasted, "c h w -> h w c"))
            faces = RegionDownload(result)
        return [(faces, position) for position in range(len(entries))]


def _merge(window: Window, entries: list[_Pending], codes: Tensor) -> None:
    """Give the window's slots their codes (f, ...), cross-faded where an earlier window has made some."""
    for slot, (entry, code) in enumerate(zip(entries, codes, strict=True)):
        fade = window.fade_in(slot)
        if entry.code is None:
            entry.code = code
        elif fade > 0 and slot < window.new_start:
            entry.code = torch.lerp(entry.code, code, fade)


def _frame_size(entries: list[_Pending]) -> tuple[int, int]:
    height, width, _ = entries[0].frame.pixels.shape
    return width, height


def _matrices(entries: list[_Pending]) -> NDArray[np.float32]:
    """Stack image-to-crop matrices: (n, 2, 3), on the host, where regions of interest are computed."""
    return np.stack([entry.frame.face.matrix for entry in entries if entry.frame.face.matrix is not None])


def _window_input(entries: list[_Pending], audio: Tensor) -> WindowInput:
    """The entries' faces; a slot without a face shows the nearest that has one, since slots influence each other."""
    slots_with_face = [slot for slot, entry in enumerate(entries) if entry.crop is not None]
    chosen = [entries[min(slots_with_face, key=lambda other: abs(other - slot))] for slot in range(len(entries))]
    faces = torch.stack([entry.crop.face for entry in chosen if entry.crop is not None])
    return WindowInput(faces, audio, [entry.frame.index for entry in chosen])
