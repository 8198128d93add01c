"""Timestamps of decoded frames, repaired where necessary, and resampling to a constant rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from latentsync.media.probe import VideoInfo


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame displayed from ``time`` to ``end``, in seconds after the first frame."""

    time: Fraction
    end: Fraction
    frame: VideoFrame


class FrameClock:
    """Assigns times to decoded frames; missing or non-increasing timestamps are replaced at the nominal interval.

    ``repaired`` is set once that was necessary: times then no longer match positions in the file and must not be used
    for seeking.
    """

    def __init__(self, info: VideoInfo) -> None:
        self._start = info.start
        self._interval = 1 / info.fps
        self.repaired = False

    def stamp(self, frames: Iterable[VideoFrame]) -> Iterator[TimedFrame]:
        """Yield the frames with strictly increasing times."""
        shift = Fraction(0)
        previous: Fraction | None = None
        for frame in frames:
            expected = Fraction(0) if previous is None else previous + self._interval
            time = expected
            if frame.pts is not None and frame.time_base:
                time = frame.pts * frame.time_base - self._start + shift
            if (frame.pts is None) or (previous is not None and time <= previous):
                shift += expected - time
                time = expected
                self.repaired = True
            previous = time
            yield TimedFrame(time, time + self._frame_duration(frame), frame)

    def _frame_duration(self, frame: VideoFrame) -> Fraction:
        seconds = (frame.duration or 0) * (frame.time_base or Fraction(0))
        return Fraction(seconds) if seconds > 0 else self._interval


def resample_frames(
    frames: Iterable[TimedFrame], fps: Fraction, slack: Fraction, first: int = 0
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (index, frame) for indices ``first``, ``first + 1``, ... to the end of the last frame.

    Index ``i`` shows the last frame that starts at or before ``i / fps + slack``, as a player would; where the frames
    begin later than that, the first of them is shown. Yields at least one index if there is any frame.

    Args:
        frames: with increasing times.
        fps: rate of the indices.
        slack: tolerance for rounded timestamps in seconds.
        first: index to start at.
    """
    index = first
    shown: TimedFrame | None = None
    for timed in frames:
        while shown is not None and index / fps + slack < timed.time:
            yield index, shown.frame
            index += 1
        shown = timed
    if shown is None:
        return
    for last in range(index, max(round(shown.end * fps), first + 1)):
        yield last, shown.frame
