"""Properties of a media file, read from its header and first decoded frame."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from latentsync.errors import MediaError
from latentsync.media.color import ColorTags, frame_tags
from latentsync.media.container import audio_stream, decode, open_input, video_stream

_STANDARD_RATES = (
    *(Fraction(rate) for rate in (15, 24, 25, 30, 48, 50, 60, 100, 120)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
)
_GRIDS = tuple(Fraction(rate) for rate in (25, 30, 50, 60, 120))
_FASTEST_GRID = 60
_SAME_RATE = Fraction(1, 2000)
_NEAR_RATE = Fraction(3, 100)


@dataclass(frozen=True)
class Orientation:
    """How stored pixels are oriented for display: first ``transpose`` (swap axes), then the flips."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Convert (h, w, 3) stored pixels to (H, W, 3) displayed pixels, contiguous."""
        oriented = pixels.swapaxes(0, 1) if self.transpose else pixels
        oriented = oriented[:, ::-1] if self.flip_x else oriented
        oriented = oriented[::-1] if self.flip_y else oriented
        return np.ascontiguousarray(oriented)

    @property
    def degrees(self) -> int:
        """Clockwise rotation from stored to displayed image: 0, 90, 180 or 270 (without any mirroring)."""
        if not self.transpose:
            return 180 if self.flip_y else 0
        return 90 if self.flip_x else 270


@dataclass(frozen=True)
class VideoInfo:
    """Properties of the video stream of a file.

    Attributes:
        path: the file.
        width, height: displayed size in pixels, after rotation.
        fps: frames per second; for variable rates the nominal or average rate.
        variable_rate: whether the header indicates a variable frame rate.
        start: timestamp of the first frame in seconds.
        duration: seconds according to the header, or None if unspecified.
        has_stream_duration: whether ``duration`` is that of the video stream, not of the file (audio may last longer).
        frame_estimate: number of displayed frames according to the header, or None.
        orientation: how stored pixels are oriented for display; ``rotation`` gives it in degrees.
        pix_fmt, bit_depth, codec: of the stored stream.
        color: color tags.
        sample_aspect_ratio: width over height of one displayed pixel.
        has_audio: whether the file also has an audio track.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    variable_rate: bool
    start: Fraction
    duration: float | None
    has_stream_duration: bool
    frame_estimate: int | None
    orientation: Orientation
    pix_fmt: str
    bit_depth: int
    color: ColorTags
    sample_aspect_ratio: Fraction
    codec: str
    has_audio: bool

    @property
    def rotation(self) -> int:
        """Clockwise rotation from stored to displayed image in degrees."""
        return self.orientation.degrees


@dataclass(frozen=True)
class AudioInfo:
    """Properties of a file's audio track; ``duration`` in seconds according to the header, or None if unspecified."""

    path: Path
    sample_rate: int
    channels: int
    codec: str
    duration: float | None


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Read the properties of a video; the first frame is decoded to verify the stream.

    Raises:
        MediaError: the file cannot be opened, has no video stream, or no frame can be decoded.
    """
    with open_input(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no video stream, only audio or data. Give a video file here.")
        frame = next(decode(container, stream, VideoFrame, []), None)
        if frame is None:
            raise MediaError(
                f"{str(path)!r}: no frame of its {stream.codec_context.name} video can be decoded. "
                "The file is damaged; copy or export it again."
            )
        return _describe(Path(path), container, stream, frame)


def probe_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the audio properties of an audio or video file; the first samples are decoded to verify the track.

    Raises:
        MediaError: the file cannot be opened, has no audio track, or the audio has zero length.
    """
    with open_input(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no audio track. Give an audio file, or a video file with audio.")
        if not any(frame.samples for frame in decode(container, stream, AudioFrame, [])):
            raise MediaError(f"The audio of {str(path)!r} has zero length. Give audio that contains speech.")
        context = stream.codec_context
        duration = _stream_duration(stream) or _container_duration(container)
        return AudioInfo(Path(path), context.sample_rate, context.channels, context.name, duration)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read a frame's display matrix [a b; c d]: x' = a x + c y, y' = b x + d y (y pointing down)."""
    for data in cast("Iterable[Any]", frame.side_data):
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
            if abs(a) >= abs(b):
                return Orientation(False, a < 0, d < 0)
            return Orientation(True, c < 0, b < 0)
    return Orientation()


def _describe(path: Path, container: InputContainer, stream: VideoStream, frame: VideoFrame) -> VideoInfo:
    orientation = orientation_of(frame)
    width, height = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    fps, variable = _frame_rate(stream)
    stream_duration = _stream_duration(stream)
    duration = stream_duration or _container_duration(container)
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        fps=fps,
        variable_rate=variable,
        start=Fraction(frame.pts or 0) * (stream.time_base or 1),
        duration=duration,
        has_stream_duration=stream_duration is not None,
        frame_estimate=_frame_estimate(stream, duration, fps, exact=stream_duration is not None and not variable),
        orientation=orientation,
        pix_fmt=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=frame_tags(frame),
        sample_aspect_ratio=1 / aspect if orientation.transpose else aspect,
        codec=stream.codec_context.name,
        has_audio=audio_stream(container) is not None,
    )


def _frame_estimate(stream: VideoStream, duration: float | None, fps: Fraction, exact: bool) -> int | None:
    # Edit lists hide frames that the header counts, so a reliable duration takes precedence.
    if duration and (exact or not stream.frames):
        return round(duration * fps)
    return stream.frames or None


def _stream_duration(stream: VideoStream | AudioStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])


def _container_duration(container: InputContainer) -> float | None:
    return container.duration / 1_000_000 if container.duration else None


def _frame_rate(stream: VideoStream) -> tuple[Fraction, bool]:
    """Frames per second and whether they vary.

    A constant rate is the header's average, with timestamp rounding removed. A variable one is the grid on which the
    frames appear to lie: a phone's "30" that averages 29.87, or a call of 18 frames per second recorded at 30.
    """
    average = stream.average_rate or stream.guessed_rate or Fraction(25)
    nominal = stream.base_rate or average
    if abs(nominal - average) / average <= _SAME_RATE:
        nearest = min(_STANDARD_RATES, key=lambda rate: abs(rate - average))
        same = abs(nearest - average) / average <= _SAME_RATE
        return (nearest if same else average.limit_denominator(1001)), False
    if average <= nominal <= _FASTEST_GRID:
        return nominal.limit_denominator(1001), True
    return min((rate for rate in _GRIDS if rate >= average * (1 - _NEAR_RATE)), default=_GRIDS[-1]), True
