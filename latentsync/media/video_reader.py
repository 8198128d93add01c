"""Streaming reader: any video file to RGB frames at a constant rate, forwards or backwards, in bounded memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from latentsync.errors import MediaError
from latentsync.media.color import to_rgb
from latentsync.media.container import decode, open_input, video_stream, warn
from latentsync.media.frame_times import FrameClock, resample_frames
from latentsync.media.probe import VideoInfo, probe_video

_MAX_CHUNK_BYTES = 160 * 2**20
_MISSING_TAIL_SECONDS = 0.5
_SEEK_EARLIER_SECONDS = (0, 2, 10)


@dataclass(frozen=True)
class SourceFrame:
    """One frame at the constant rate: 0-based ``index``, and ``pixels`` (h, w, 3) uint8 RGB, owned by the caller."""

    index: int
    pixels: np.ndarray


class VideoReader:
    """Reads a video at a constant frame rate, whatever its timestamps.

    Frame ``i`` is what a player shows ``i / fps`` seconds after the first frame: frames are repeated or dropped where
    the source rate differs or varies. Rotation tags are applied; sizes are kept, including odd ones. Damaged data is
    skipped and reported in ``warnings``.

    Each iteration opens the file again, so several may run concurrently. Memory does not grow with the video length.

    Args:
        path: the file.
        fps: frames per second of the result; None keeps the source rate (``info.fps``).

    Raises:
        MediaError: see ``probe_video``; or the rate is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], fps: Fraction | None = None) -> None:
        self.info: VideoInfo = probe_video(path)
        self.fps = Fraction(fps) if fps is not None else self.info.fps
        if self.fps <= 0:
            raise MediaError(f"Cannot read {str(path)!r} at {self.fps} frames per second; give a rate above 0.")
        self.warnings: list[str] = []
        # Half a frame of tolerance, so that rounded timestamps (milliseconds in mkv) do not shift frames.
        self._slack = min(1 / self.fps, 1 / self.info.fps) / 2
        self._clock = FrameClock(self.info)

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield all frames from the first to the last."""
        reformatter = VideoReformatter()
        count = 0
        with open_input(self.info.path) as container:
            timed = self._clock.stamp(decode(container, self._stream(container), VideoFrame, self.warnings))
            for index, frame in resample_frames(timed, self.fps, self._slack):
                yield SourceFrame(index, self._pixels(frame, reformatter))
                count = index + 1
        self._warn_if_truncated(count)

    def frames_backward(self, start_index: int) -> Iterator[SourceFrame]:
        """Yield frames ``start_index``, ``start_index - 1``, ... 0.

        Chunks are decoded forwards from the preceding keyframe and buffered in the decoder's pixel format (at most
        160 MiB), so each frame is decoded once, plus the frames between the keyframe and the start of each chunk.
        """
        reformatter = VideoReformatter()
        chunk_length = self._chunk_length()
        last = start_index
        while last >= 0:
            first = max(0, last - chunk_length + 1)
            frames = self._decode_chunk(first, last)
            for index in range(last, first - 1, -1):
                yield SourceFrame(index, self._pixels(frames.pop(), reformatter))
            last = first - 1

    def _stream(self, container: InputContainer) -> VideoStream:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(
                f"{str(self.info.path)!r} no longer has a video stream: it was replaced while being read. Run it again."
            )
        stream.thread_type = "AUTO"
        return stream

    def _pixels(self, frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        return self.info.orientation.apply(to_rgb(frame, self.info.color, reformatter, self._stored_size()))

    def _stored_size(self) -> tuple[int, int]:
        size = (self.info.width, self.info.height)
        return size[::-1] if self.info.orientation.transpose else size

    def _chunk_length(self) -> int:
        # 4:2:0 has 1.5 samples per pixel; 3 covers every other format.
        sample_bytes = 1 if self.info.bit_depth <= 8 else 2
        per_frame = self.info.width * self.info.height * sample_bytes * (1.5 if "420" in self.info.pix_fmt else 3)
        return max(8, int(_MAX_CHUNK_BYTES / per_frame))

    def _decode_chunk(self, first: int, last: int) -> list[VideoFrame]:
        """Decode the frames ``first`` ... ``last``; seeks further back until the seek lands before them."""
        if not self._clock.repaired:
            for earlier in _SEEK_EARLIER_SECONDS:
                frames = self._collect(first, last, first / self.fps - earlier)
                if frames and not self._clock.repaired:
                    return frames
        frames = self._collect(first, last, None)
        if not frames:
            raise MediaError(
                f"{str(self.info.path)!r} can no longer be read at frame {first}: it was replaced while being read. "
                "Run it again."
            )
        return frames

    def _collect(self, first: int, last: int, seek_to: Fraction | None) -> list[VideoFrame]:
        """Decode from the keyframe before ``seek_to`` seconds (None: from the start); empty if that is too late."""
        collected: list[VideoFrame] = []
        with open_input(self.info.path) as container:
            stream = self._stream(container)
            if seek_to is not None and seek_to > 0:
                try:
                    ticks = int((seek_to + self.info.start) / (stream.time_base or 1))
                    container.seek(ticks, stream=stream)
                except FFmpegError:
                    return collected
            timed = self._clock.stamp(decode(container, stream, VideoFrame, []))
            head = next(timed, None)
            if head is None or (seek_to is not None and 0 < head.time and head.time > first / self.fps + self._slack):
                return collected
            for index, frame in resample_frames(chain([head], timed), self.fps, self._slack, first):
                collected.append(frame)
                if index == last:
                    return collected
        return collected + collected[-1:] * (last - first + 1 - len(collected))

    def _warn_if_truncated(self, count: int) -> None:
        seconds = float(count / self.fps)
        expected = self.info.duration if self.info.has_stream_duration else None
        if expected is not None and seconds < expected - _MISSING_TAIL_SECONDS:
            warn(
                self.warnings,
                f"{self.info.path.name}: only the first {seconds:.2f} s of {expected:.2f} s could be read; "
                "the rest is damaged or missing.",
            )
