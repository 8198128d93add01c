"""Searching ahead and following: which frames are looked at, and by which thread."""

import threading

import numpy as np
import pytest
import torch

from latentsync.face.detection.detector import FaceDetection
from latentsync.face.tracking.tracker import FaceTracker
from latentsync.pipelines.align import align_frames, search_frames
from latentsync.pipelines.stages import Prefetch
from latentsync.profiling import StageClock

POINTS = np.array([[40, 40], [60, 40], [50, 60]], np.float32)


class NumberReader:
    """Sees in every frame one face, at the place that the frame's colour tells; keeps account of what is asked."""

    def __init__(self) -> None:
        self.searched: list[int] = []
        self.detected: list[int] = []
        self.threads: set[str] = set()

    def search(self, frame):
        self.threads.add(threading.current_thread().name)
        self.searched.append(int(frame[0, 0, 0]))
        return self.searched[-1]

    def detect(self, frame, candidates=None):
        assert candidates == frame[0, 0, 0], "what another frame's search told"
        self.detected.append(candidates)
        shift = np.float32(candidates / 10)
        return [FaceDetection(np.array([30, 30, 70, 70], np.float32) + shift, 0.9, POINTS + shift)]

    def close(self):
        pass


def played(order):
    """Frames of 100x100, each in the colour of its number."""
    return ((index, number, np.full((100, 100, 3), number, np.uint8)) for index, number in enumerate(order))


def follow(order, detector, *, ahead):
    clock = StageClock(torch.device("cpu"))
    tracker = FaceTracker("largest", (100, 100), 25.0, 64)
    searched = search_frames(played(order), detector, clock)
    if not ahead:
        return list(align_frames(searched, detector, tracker, clock)), clock.seconds()
    with Prefetch(searched, 4, "search") as queue:
        return list(align_frames(queue, detector, tracker, clock)), clock.seconds()


@pytest.mark.parametrize("ahead", [False, True])
def test_every_source_frame_is_searched_and_detected_once(ahead):
    detector = NumberReader()
    order = [*range(30), *range(29, -1, -1), *range(30)]
    frames, seconds = follow(order, detector, ahead=ahead)
    assert [frame.index for frame in frames] == list(range(90))
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == order
    assert detector.searched == detector.detected == list(range(30))
    assert seconds.keys() == {"search", "detect"}
    assert detector.threads == {"search" if ahead else "MainThread"}


def test_searching_ahead_changes_no_face():
    results = [follow(range(40), NumberReader(), ahead=ahead)[0] for ahead in (False, True)]
    for one, other in zip(*results, strict=True):
        assert one.face.reason == other.face.reason
        np.testing.assert_array_equal(one.face.matrix, other.face.matrix)
