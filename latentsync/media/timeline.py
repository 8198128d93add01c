"""The output timeline: frame rate, frame count, and a reader that yields source frames in output order."""

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Literal, NamedTuple, get_args

import numpy as np

from latentsync.errors import ConfigError, MediaError
from latentsync.media.probe import VideoInfo
from latentsync.media.video_reader import SourceFrame, VideoReader

LoopMode = Literal["pingpong", "hold", "error"]

_HIGHEST_SOURCE_RATE = 30
_RATE_TOLERANCE = 1.05
_NTSC_RATES = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))


def output_fps(info: VideoInfo, choice: str | float | Fraction = "source") -> Fraction:
    """Frame rate of the output.

    Args:
        info: of the source video.
        choice: "source" keeps source rates up to 30 and divides faster ones by the smallest integer that brings them to
            30 or below (50 -> 25, 59.94 -> 29.97, 120 -> 30), so that the kept frames stay evenly spaced; a number
            (or its text, "25", "30000/1001") is used as given.

    Raises:
        ConfigError: the choice is neither "source" nor a number in (0, 240].
    """
    if choice == "source":
        return info.fps / math.ceil(info.fps / Fraction(_HIGHEST_SOURCE_RATE * _RATE_TOLERANCE))
    return parse_rate(choice)


def parse_rate(choice: str | float | Fraction) -> Fraction:
    """Parse a frame rate from a number or text, such as 25 or "30000/1001", snapping to exact NTSC rates.

    Raises:
        ConfigError: the choice is not a number in (0, 240].
    """
    try:
        rate = Fraction(choice)
    except (ValueError, ZeroDivisionError, OverflowError):
        rate = Fraction(0)
    if not 0 < rate <= 240:
        raise ConfigError(f"Invalid output frame rate {choice!r}; give 'source' or a number in (0, 240].")
    ntsc = min(_NTSC_RATES, key=lambda known: abs(known - rate))
    return ntsc if abs(ntsc - rate) < Fraction(1, 200) else rate.limit_denominator(1001)


def output_frame_count(audio_seconds: float | Fraction, fps: Fraction) -> int:
    """Number of output frames for audio of the given duration: round(audio_seconds * fps), at least 1."""
    return max(1, round(Fraction(audio_seconds) * fps))


def pingpong_index(index: int, count: int) -> int:
    """Source frame at output frame ``index``: 0 ... count-1 ... 0 ..., with the end frames shown once."""
    if count <= 1:
        return 0
    position = index % (2 * count - 2)
    return min(position, 2 * count - 2 - position)


def published_loop_index(index: int, count: int) -> int:
    """Source frame at output frame ``index`` as in the published system: the end frames are shown twice."""
    position = index % (2 * count)
    return min(position, 2 * count - 1 - position)


class TimelineFrame(NamedTuple):
    """One output frame: its index, the index of its source frame, and the (h, w, 3) uint8 RGB pixels."""

    output_index: int
    source_index: int
    pixels: np.ndarray


class TimelineReader:
    """Yields exactly as many frames as the output needs, in bounded memory.

    A longer video is truncated; a shorter one is played forwards and backwards ("pingpong", decoding it again), freezes
    on its last frame ("hold"), or is rejected ("error"). Source indices count frames at ``fps``.

    Args:
        path: the video.
        fps: rate of source and output frames.
        num_frames: number of output frames.
        loop: what to do if the video is too short.

    Raises:
        MediaError: the video cannot be read, or is too short with ``loop="error"`` (raised here if the header has the
            duration, otherwise while iterating).
        ConfigError: unknown ``loop`` or a count below 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: Fraction,
        num_frames: int,
        loop: LoopMode = "pingpong",
    ) -> None:
        if loop not in get_args(LoopMode):
            raise ConfigError(f"Unknown loop mode {loop!r}; choose one of {', '.join(get_args(LoopMode))}.")
        self.num_frames = num_frames
        if self.num_frames < 1:
            raise ConfigError(f"num_frames is {self.num_frames}; it must be at least 1.")
        self.loop = loop
        self.reader = VideoReader(path, fps)
        duration = self.info.duration if self.info.has_stream_duration else None
        if loop == "error" and duration is not None and round(duration * fps) < self.num_frames:
            raise self._too_short(duration)

    @property
    def info(self) -> VideoInfo:
        """Properties of the source video."""
        return self.reader.info

    @property
    def fps(self) -> Fraction:
        """Rate of source and output frames."""
        return self.reader.fps

    @property
    def warnings(self) -> list[str]:
        """Read warnings so far."""
        return self.reader.warnings

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[TimelineFrame]:
        """Yield output frames 0 ... num_frames - 1."""
        for output_index, frame in enumerate(islice(self._looped_frames(), self.num_frames)):
            yield TimelineFrame(output_index, frame.index, frame.pixels)

    def _looped_frames(self) -> Iterator[SourceFrame]:
        last: SourceFrame | None = None
        for frame in self.reader:
            last = frame
            yield frame
        if last is None:
            raise MediaError(f"{str(self.info.path)!r}: no frame could be decoded. Copy or export the file again.")
        if self.loop == "error":
            raise self._too_short(float((last.index + 1) / self.fps))
        while self.loop == "hold" or last.index == 0:
            yield SourceFrame(last.index, last.pixels.copy())
        while True:
            yield from self.reader.frames_backward(last.index - 1)
            yield from islice(self.reader, 1, None)

    def _too_short(self, seconds: float) -> MediaError:
        return MediaError(
            f"{str(self.info.path)!r} lasts {seconds:.2f} s, but the audio needs "
            f"{float(self.num_frames / self.fps):.2f} s ({self.num_frames} frames). Give a longer video or shorter "
            "audio, or allow looping (pingpong or hold)."
        )
