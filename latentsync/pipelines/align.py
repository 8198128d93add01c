"""The stage between decoder and generator: finds, follows and smooths the face, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentsync.face.detection.detector import FaceDetector
from latentsync.face.tracking.tracker import FaceTracker, TrackedFace
from latentsync.profiling import StageClock

SourceItem = tuple[int, int, NDArray[np.uint8]]
"""Output index, source index, pixels (H, W, 3) uint8 RGB."""
SearchedItem = tuple[int, int, NDArray[np.uint8], Any]
"""The same and what the detector's search told of it, None where it has nothing to tell or told it before."""


@dataclass(frozen=True)
class AlignedFrame:
    """An output frame and where its face is.

    Attributes:
        index: output frame.
        pixels: (H, W, 3) uint8 RGB, the source's own.
        face: the tracked face of the source frame shown.
    """

    index: int
    pixels: NDArray[np.uint8]
    face: TrackedFace


def search_frames(source: Iterable[SourceItem], detector: FaceDetector, clock: StageClock) -> Iterator[SearchedItem]:
    """Do the part of detection that needs no other frames, so that a thread of its own can do it ahead.

    Args:
        source: frames as `align_frames` needs them.
        detector: whose search is run, once for each source frame.
        clock: gets the stage "search".

    Yields:
        Every frame in order.
    """
    newest = -1
    for index, source_index, pixels in source:
        candidates = None
        if source_index > newest:
            newest = source_index
            with clock.host("search"):
                candidates = detector.search(pixels)
        yield index, source_index, pixels, candidates


def align_frames(
    source: Iterable[SearchedItem], detector: FaceDetector, tracker: FaceTracker, clock: StageClock
) -> Iterator[AlignedFrame]:
    """Follow the face through a stream of frames.

    A source frame that comes again (the video is played to and fro, or held) is not detected again. Frames leave
    with the tracker's lag, so a bounded number of them is held.

    Args:
        source: frames from `search_frames` in output order; source indices first rise without gaps from wherever
            they start, then may repeat in any order.
        detector: finds faces.
        tracker: follows one of them.
        clock: gets the stage "detect".

    Yields:
        Every frame in order.
    """
    faces: dict[int, TrackedFace] = {}
    pending: deque[SourceItem] = deque()
    newest, complete = -1, False
    for item in source:
        index, source_index, pixels, candidates = item
        pending.append((index, source_index, pixels))
        if source_index > newest:
            newest = source_index
            with clock.host("detect"):
                tracked = tracker.push(source_index, detector.detect(pixels, candidates))
            faces.update((face.index, face) for face in tracked)
        elif not complete:
            complete = True
            faces.update((face.index, face) for face in tracker.flush())
        yield from _ready(pending, faces)
    if not complete:
        faces.update((face.index, face) for face in tracker.flush())
    yield from _ready(pending, faces)


def _ready(pending: deque[SourceItem], faces: dict[int, TrackedFace]) -> Iterator[AlignedFrame]:
    while pending and pending[0][1] in faces:
        index, source_index, pixels = pending.popleft()
        yield AlignedFrame(index, pixels, faces[source_index])
