"""Where the frames of a clip lie in its file, so that any window can be decoded without what lies before it."""

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
    """The packets of a clip's picture, in ticks of its stream.

    Attributes:
        path: the file.
        time_base: seconds per tick.
        shown_pts: growing time stamps of the frames that are shown (an edit list may hide some).
        end: when the last of them ends.
        keyframe_pts: growing time stamps of the key frames.
    """

    path: Path
    time_base: Fraction
    shown_pts: tuple[int, ...]
    end: int
    keyframe_pts: tuple[int, ...]

    @property
    def start(self) -> Fraction:
        """When the first frame is shown, in seconds on the clock of the container."""
        return self.shown_pts[0] * self.time_base

    def count(self, fps: Fraction | int) -> int:
        """How many frames the clip has at a constant rate."""
        return max(1, round((self.end - self.shown_pts[0]) * self.time_base * fps))

    def stamps(self, numbers: Iterable[int], fps: Fraction | int) -> list[int]:
        """Time stamps of the frames that are shown at ``number / fps`` seconds after the first one.

        Half a frame of tolerance keeps rounded time stamps from shifting frames, as in `VideoReader`.
        """
        own = (self.end - self.shown_pts[0]) * self.time_base / len(self.shown_pts)
        slack = min(1 / Fraction(fps), own) / 2
        ticks = ((Fraction(number) / fps + slack) / self.time_base + self.shown_pts[0] for number in numbers)
        return [self.shown_pts[max(0, bisect_right(self.shown_pts, tick) - 1)] for tick in ticks]

    def are_adjacent(self, stamp: int, later: int) -> bool:
        """Whether no frame is shown between two that are."""
        return bisect_right(self.shown_pts, stamp) == bisect_left(self.shown_pts, later)

    def keyframe_before(self, stamp: int) -> int:
        """Time stamp of the key frame from which the frame at ``stamp`` can be decoded."""
        return self.keyframe_pts[max(0, bisect_right(self.keyframe_pts, stamp) - 1)]


class _Packet(NamedTuple):
    pts: int
    duration: int
    is_key: bool
    is_shown: bool


def index_frames(path: str | os.PathLike[str]) -> FrameIndex:
    """Read the packets of a video's picture without decoding any.

    Raises:
        MediaError: the file cannot be opened, has no picture, or its frames have no time stamps.
    """
    with open_input(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no picture, only sound or data. Give a video file here.")
        time_base = Fraction(stream.time_base or 0)
        packets = _packets(container, stream)
    shown_pts = sorted({packet.pts for packet in packets if packet.is_shown})
    keyframe_pts = sorted(packet.pts for packet in packets if packet.is_key)
    if not shown_pts or not keyframe_pts or not time_base:
        raise MediaError(f"{str(path)!r} has no picture whose frames have time stamps. Convert the video to mp4.")
    distance = max(packet.duration for packet in packets if packet.pts == shown_pts[-1])
    distance = distance or (shown_pts[-1] - shown_pts[0]) // max(1, len(shown_pts) - 1) or round(1 / (25 * time_base))
    return FrameIndex(Path(path), time_base, tuple(shown_pts), shown_pts[-1] + distance, tuple(keyframe_pts))


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
