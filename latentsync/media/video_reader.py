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

_BACKWARD_BYTES = 160 * 2**20
_MISSING_TAIL_SECONDS = 0.5
_SEEK_EARLIER_SECONDS = (0, 2, 10)


@dataclass(frozen=True)
class SourceFrame:
    """One frame at the constant rate: ``index`` counts from 0, ``pixels`` is (h, w, 3) uint8 RGB, the caller's own."""

    index: int
    pixels: np.ndarray


class VideoReader:
    """Reads a video at a constant frame rate, whatever its time stamps are.

    Frame ``i`` is what a player shows at ``i / fps`` seconds after the first frame: frames are repeated or left out
    where the source's rate differs or varies. Rotation tags are applied and sizes are kept, odd ones too. Where the
    file is damaged, what can be read is used and ``warnings`` says what happened.

    Each iteration opens the file anew, so several may be under way at once. Memory does not grow with the length.

    Args:
        path: the file.
        fps: frames per second of the result; None keeps the source's (``info.fps``).

    Raises:
        MediaError: see ``probe_video``; also a rate that is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], fps: Fraction | None = None) -> None:
        self.info: VideoInfo = probe_video(path)
        self.fps = Fraction(fps) if fps is not None else self.info.fps
        if self.fps <= 0:
            raise MediaError(f"Cannot read {str(path)!r} at {self.fps} frames per second; give a rate above 0.")
        self.warnings: list[str] = []
        # Half a frame of tolerance, so that rounded time stamps (milliseconds in mkv) do not shift frames.
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
        self._warn_if_cut(count)

    def frames_backward(self, start_index: int) -> Iterator[SourceFrame]:
        """Yield frames ``start_index``, ``start_index - 1``, ... 0.

        Stretches are decoded forwards from the key frame before them and held as the decoder made them (160 MiB at the
        most), so a stretch is decoded once, and what lies between it and its key frame once more per stretch.
        """
        reformatter = VideoReformatter()
        longest = self._stretch_length()
        last = start_index
        while last >= 0:
            first = max(0, last - longest + 1)
            held = self._decode_stretch(first, last)
            for index in range(last, first - 1, -1):
                yield SourceFrame(index, self._pixels(held.pop(), reformatter))
            last = first - 1

    def _stream(self, container: InputContainer) -> VideoStream:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{str(self.info.path)!r} has lost its picture while being read. Was it replaced?")
        stream.thread_type = "AUTO"
        return stream

    def _pixels(self, frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        return self.info.orientation.apply(to_rgb(frame, self.info.color, reformatter, self._stored_size()))

    def _stored_size(self) -> tuple[int, int]:
        size = (self.info.width, self.info.height)
        return size[::-1] if self.info.orientation.transpose else size

    def _stretch_length(self) -> int:
        # 4:2:0 and 4:4:4 differ by two; 3 bytes per pixel and sample width covers all of them.
        sample_bytes = 1 if self.info.bit_depth <= 8 else 2
        per_frame = self.info.width * self.info.height * sample_bytes * (1.5 if "420" in self.info.pix_fmt else 3)
        return max(8, int(_BACKWARD_BYTES / per_frame))

    def _decode_stretch(self, first: int, last: int) -> list[VideoFrame]:
        """Frames for the indices ``first`` ... ``last``; seeks further back until the frame before them is met."""
        if not self._clock.repaired:
            for earlier in _SEEK_EARLIER_SECONDS:
                held = self._collect(first, last, first / self.fps - earlier)
                if held and not self._clock.repaired:
                    return held
        held = self._collect(first, last, None)
        if not held:
            raise MediaError(f"{str(self.info.path)!r} can no longer be read at frame {first}. Was it replaced?")
        return held

    def _collect(self, first: int, last: int, seek_to: Fraction | None) -> list[VideoFrame]:
        """Decode from the key frame before ``seek_to`` seconds (None: from the start); empty if that is too late."""
        held: list[VideoFrame] = []
        with open_input(self.info.path) as container:
            stream = self._stream(container)
            if seek_to is not None and seek_to > 0:
                try:
                    ticks = int((seek_to + self.info.start) / (stream.time_base or 1))
                    container.seek(ticks, stream=stream)
                except FFmpegError:
                    return held
            timed = self._clock.stamp(decode(container, stream, VideoFrame, []))
            head = next(timed, None)
            if head is None or (seek_to is not None and 0 < head.time and head.time > first / self.fps + self._slack):
                return held
            for index, frame in resample_frames(chain([head], timed), self.fps, self._slack, first):
                held.append(frame)
                if index == last:
                    return held
        return held + held[-1:] * (last - first + 1 - len(held))

    def _warn_if_cut(self, count: int) -> None:
        seconds = float(count / self.fps)
        expected = self.info.duration if self.info.has_stream_duration else None
        if expected is not None and seconds < expected - _MISSING_TAIL_SECONDS:
            warn(
                self.warnings,
                f"{self.info.path.name}: only the first {seconds:.2f} s of {expected:.2f} s could be read; "
                "the rest is damaged or missing.",
            )
