"""Streaming writer: encodes RGB frames and the driving audio to one video file in a single pass."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from latentsync.errors import ConfigError, MediaError
from latentsync.media.audio.muxer import AudioMuxer, AudioTrack
from latentsync.media.color import ColorTags, from_rgb
from latentsync.media.container import reason
from latentsync.media.output_file import check_output, partial_path, publish

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_CODECS = ("libx264", "libx265")
_PIX_FMTS = ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le")


@dataclass(frozen=True)
class WriterOptions:
    """Video encoding settings.

    Attributes:
        crf: constant rate factor, 0 (lossless) ... 51; lower means better quality and larger files. 14 with "veryfast"
            keeps every frame of the measured clips above 43 dB (RGB) at 0.3-0.7 MB/s in 1080p.
        preset: x264 speed preset. "veryfast" takes 30 ms of CPU time per 1080p frame; "medium" takes 80 ms to save a
            tenth of the size at equal quality, and the generator needs those cores.
        codec: "libx264" plays everywhere; "libx265" is smaller and slower.
        pix_fmt: "yuv420p" plays everywhere. It requires even sizes: an odd one is padded by repeating the last column
            or row. "yuv444p" keeps odd sizes, but many players and browsers reject it. The "10le" formats avoid banding
            with 10-bit sources where the player supports them.
        color: tags written to the file and used to convert the pixels: those of the source.
        sample_aspect_ratio: width over height of a pixel.
        keyframe_interval: maximum number of frames between keyframes, which bounds the cost of seeking; 0 leaves it to
            the encoder.
        threads: of the encoder; 0 leaves it to the encoder. Many small files are written faster by single-threaded
            processes.
        inputs: files that must not be overwritten (the file of the audio track is added automatically).
        overwrite: whether an existing file may be replaced.
    """

    crf: int = 14
    preset: str = "veryfast"
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    color: ColorTags = field(default_factory=ColorTags)
    sample_aspect_ratio: Fraction = Fraction(1)
    keyframe_interval: int = 0
    threads: int = 0
    inputs: tuple[str | os.PathLike[str], ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for an unusable value."""
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"crf {self.crf} is out of range; use 0 (lossless) to 51.")
        if self.keyframe_interval < 0 or self.threads < 0:
            raise ConfigError(f"keyframe_interval {self.keyframe_interval} and threads {self.threads} must be >= 0.")
        for name, value, known in (
            ("preset", self.preset, PRESETS),
            ("codec", self.codec, _CODECS),
            ("pix_fmt", self.pix_fmt, _PIX_FMTS),
        ):
            if value not in known:
                raise ConfigError(f"Unknown {name} {value!r}; choose one of {', '.join(known)}.")


class VideoWriter:
    """Writes a video under a temporary name and renames it to its final name once it is complete.

    Use as a context manager: a clean exit finishes the file, an exception (including Ctrl-C) removes it.

    Args:
        path: final name; .mp4, .m4v, .mov or .mkv.
        width, height: of the frames in pixels.
        fps: constant frame rate.
        audio: audio track, trimmed or padded with silence to exactly frames / fps; None for a video without audio.
        options: see ``WriterOptions``.

    Raises:
        MediaError: see ``check_output``; later, if the disk is full or an encoder fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: Fraction,
        audio: AudioTrack | None = None,
        options: WriterOptions | None = None,
    ) -> None:
        self.options = options or WriterOptions()
        inputs = (*self.options.inputs, *(() if audio is None else (audio.path,)))
        self.path = check_output(path, inputs, self.options.overwrite)
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.frames_written = 0
        self._audio_track = audio
        self._reformatter = VideoReformatter()
        self._partial: Path | None = None
        self._container: OutputContainer | None = None
        self._video_stream: VideoStream | None = None
        self._audio_muxer: AudioMuxer | None = None

    @property
    def encoded_size(self) -> tuple[int, int]:
        """(width, height) in the file: odd sizes are padded by one pixel in 4:2:0."""
        odd = int("420" in self.options.pix_fmt)
        return self.width + (self.width & odd), self.height + (self.height & odd)

    def __enter__(self) -> "VideoWriter":
        self._partial = partial_path(self.path)
        try:
            with self._wrap_errors():
                self._open(self._partial)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            with self._wrap_errors():
                self._finish()
        except BaseException:
            self._discard()
            raise

    def write(self, pixels: np.ndarray) -> None:
        """Append one frame of (h, w, 3) uint8 RGB.

        Raises:
            MediaError: the disk is full or the encoder fails.
            ValueError: wrong shape or dtype, or the writer is not open.
        """
        if pixels.shape != (self.height, self.width, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"expected ({self.height}, {self.width}, 3) uint8, got {pixels.shape} {pixels.dtype}")
        if self._container is None or self._video_stream is None:
            raise ValueError("VideoWriter is not open; use it in a with statement")
        with self._wrap_errors():
            frame = from_rgb(self._padded(pixels), self.options.pix_fmt, self.options.color, self._reformatter)
            frame.pts, frame.time_base = self.frames_written, 1 / self.fps
            self._container.mux(self._video_stream.encode(frame))
            self.frames_written += 1
            if self._audio_muxer is not None:
                self._audio_muxer.advance(self.frames_written / self.fps)

    def _open(self, partial: Path) -> None:
        flags = {"movflags": "+faststart"} if partial.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(partial), "w", options=flags)
        video_stream = self._container.add_stream(self.options.codec, rate=self.fps, options=self._encoder_options())
        self._video_stream = cast("VideoStream", video_stream)
        self._describe(self._video_stream)
        if self._audio_track is not None:
            self._audio_muxer = AudioMuxer(self._container, self._audio_track)

    def _encoder_options(self) -> dict[str, str]:
        options = {"crf": str(self.options.crf), "preset": self.options.preset}
        optional = {"g": self.options.keyframe_interval, "threads": self.options.threads}
        options |= {name: str(value) for name, value in optional.items() if value}
        return options | ({"x265-params": "log-level=error"} if self.options.codec == "libx265" else {})

    def _describe(self, video_stream: VideoStream) -> None:
        color, context = self.options.color, video_stream.codec_context
        context.width, context.height = self.encoded_size
        context.pix_fmt = self.options.pix_fmt
        context.time_base = 1 / self.fps
        context.colorspace, context.color_range = color.matrix, color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        context.sample_aspect_ratio = self.options.sample_aspect_ratio
        if self.options.codec == "libx265" and self.path.suffix.lower() != ".mkv":
            context.codec_tag = "hvc1"

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        width, height = self.encoded_size
        if (width, height) != (self.width, self.height):
            pixels = np.pad(pixels, ((0, height - self.height), (0, width - self.width), (0, 0)), mode="edge")
        return np.ascontiguousarray(pixels)

    def _finish(self) -> None:
        if self._container is None or self._video_stream is None or self._partial is None:
            raise ValueError("VideoWriter is not open; use it in a with statement")
        if not self.frames_written:
            raise MediaError(f"Nothing to write to {str(self.path)!r}: no frame was generated.")
        self._container.mux(self._video_stream.encode(None))
        if self._audio_muxer is not None:
            self._audio_muxer.finish(self.frames_written / self.fps)
        self._container.close()
        self._container = None
        publish(self._partial, self.path, self.options.overwrite)

    def _discard(self) -> None:
        if self._container is not None:
            with contextlib.suppress(FFmpegError, OSError):
                self._container.close()
            self._container = None
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        """Re-raise libav and OS errors as MediaError."""
        try:
            yield
        except (FFmpegError, OSError) as error:
            raise MediaError(
                f"Writing {str(self.path)!r} failed after {self.frames_written} frames ({reason(error)}). "
                "Check free disk space and permissions; nothing was left behind."
            ) from error
