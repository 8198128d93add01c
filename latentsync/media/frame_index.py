"""Packet index of a clip's video stream, for decoding any window without everything before it."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from latentsync.errors import MediaError
from latentsync.media.container import open_input, reason, video_stream


@dataclass(frozen=True)
class FrameIndex:
    """The packets of a clip's video stream; timestamps are in ticks of the stream.

    Attributes:
        path: the file.
        time_base: seconds per tick.
        shown_pts: ascending timestamps of the displayed frames (an edit list may hide some).
        end: end time of the last displayed frame.
        keyframe_pts: ascending timestamps of the keyframes.
    """

    path: Path
    time_base: Fraction
    shown_pts: tuple[int, ...]
    end: int
    keyframe_pts: tuple[int, ...]

    @property
    def start(self) -> Fraction:
        """Time of the first displayed frame, in seconds on the container clock."""
        return self.shown_pts[0] * self.time_base

    def count(self, fps: Fraction | int) -> int:
        """Number of frames of the clip at a constant rate."""
        return max(1, round((self.end - self.shown_pts[0]) * self.time_base * fps))

    def pts_of(self, frame_indices: Iterable[int], fps: Fraction | int) -> list[int]:
        """Timestamps of the frames displayed ``index / fps`` seconds after the first one.

        Half a frame of tolerance keeps rounded timestamps from shifting frames, as in `VideoReader`.
        """
        frame_duration = (self.end - self.shown_pts[0]) * self.time_base / len(self.shown_pts)
        slack = min(1 / Fraction(fps), frame_duration) / 2
        ticks = ((Fraction(index) / fps + slack) / self.time_base + self.shown_pts[0] for index in frame_indices)
        return [self.shown_pts[max(0, bisect_right(self.shown_pts, tick) - 1)] for tick in ticks]

    def are_adjacent(self, pts: int, later_pts: int) -> bool:
        """Whether no frame is displayed between two displayed frames."""
        return bisect_right(self.shown_pts, pts) == bisect_left(self.shown_pts, later_pts)

    def keyframe_before(self, pts: int) -> int:
        """Timestamp of the keyframe from which the frame at ``pts`` can be decoded."""
        return self.keyframe_pts[max(0, bisect_right(self.keyframe_pts, pts) - 1)]


class _Packet(NamedTuple):
    pts: int
    duration: int
    is_key: bool
    is_shown: bool


def index_frames(path: str | os.PathLike[str]) -> FrameIndex:
    """Read the packets of the video stream without decoding them.

    Raises:
        MediaError: the file cannot be opened, has no video stream, or its frames have no timestamps.
    """
    with open_input(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no video stream, only audio or data. Give a video file here.")
        time_base = Fraction(stream.time_base or 0)
        packets = _packets(container, stream)
    shown_pts = sorted({packet.pts for packet in packets if packet.is_shown})
    keyframe_pts = sorted(packet.pts for packet in packets if packet.is_key)
    if not shown_pts or not keyframe_pts or not time_base:
        raise MediaError(f"{str(path)!r} has no video stream with timestamps. Convert the video to mp4.")
    duration = max(packet.duration for packet in packets if packet.pts == shown_pts[-1])
    duration = duration or (shown_pts[-1] - shown_pts[0]) // max(1, len(shown_pts) - 1) or round(1 / (25 * time_base))
    return FrameIndex(Path(path), time_base, tuple(shown_pts), shown_pts[-1] + duration, tuple(keyframe_pts))


def _packets(container: InputContainer, stream: VideoStream) -> list[_Packet]:
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                packets.append(_Packet(packet.pts, packet.duration or 0, packet.is_keyframe, not packet.is_discard))
    except (FFmpegError, IndexError) as error:
        raise MediaError(
            f"{container.name!r} is damaged or cut off ({reason(error)}). Copy or export it again."
        ) from error
    return packets
