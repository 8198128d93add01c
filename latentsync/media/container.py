"""Opening media files and robust decoding of one stream, with libav errors raised as MediaError."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import EOFError as AvEOFError
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from latentsync.errors import MediaError

FrameT = TypeVar("FrameT", bound=VideoFrame | AudioFrame)

logger = logging.getLogger(__name__)

_MAX_READ_ERRORS = 64
_TEXT_FORMATS = {"tty", "srt", "ass", "webvtt", "lrc", "subviewer", "microdvd", "concat"}


def open_input(path: str | os.PathLike[str]) -> InputContainer:
    """Open a media file for reading.

    Raises:
        MediaError: the file is missing, a folder, empty, not readable, or in a format unknown to libav.
    """
    file = Path(path)
    if not os.path.exists(file):
        raise MediaError(f"Cannot open {str(file)!r}: no such file. Check the path.")
    if os.path.isdir(file):
        raise MediaError(f"Cannot open {str(file)!r}: it is a folder. Give one video or audio file.")
    if not os.access(file, os.R_OK):
        raise MediaError(f"Cannot open {str(file)!r}: permission denied. Change the file's permissions.")
    if os.path.isfile(file) and os.path.getsize(file) == 0:
        raise MediaError(f"Cannot open {str(file)!r}: the file is empty (0 bytes). Copy or export it again.")
    try:
        # An absolute path cannot be mistaken for a protocol ("concat:...", "a:b.mp4").
        container = av.open(os.path.abspath(file), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        raise MediaError(
            f"Cannot read {str(file)!r} as video or audio ({reason(error)}). It is damaged, cut off before its index, "
            "or not a media file; play it to check, or convert it to mp4 or wav."
        ) from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise MediaError(f"Cannot read {str(file)!r}: it is a text file. Give a video or audio file.")
    return container


def reason(error: Exception) -> str:
    """Libav's description of an error, without its code."""
    return str(getattr(error, "strerror", None) or error)


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main video stream of a file, ignoring cover art; None if there is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        return None
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in streams else streams[0]


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The main audio stream of a file; None if there is none."""
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) else None


def decode(
    container: InputContainer, stream: VideoStream | AudioStream, kind: type[FrameT], warnings: list[str]
) -> Iterator[FrameT]:
    """Decode a stream from the container's position to its end, skipping damaged data where possible.

    Args:
        container: an open file.
        stream: one of its streams.
        kind: VideoFrame or AudioFrame, matching the stream.
        warnings: one sentence is appended at the end if anything could not be read.
    """
    damage = _Damage()
    for packet in _packets(container, stream, damage):
        try:
            frames = packet.decode()
        except AvEOFError:
            break
        except FFmpegError:
            damage.count += 1
            continue
        usable = [frame for frame in frames if isinstance(frame, kind) and not frame.is_corrupt]
        damage.count += len(frames) - len(usable)
        yield from usable
    if damage.count:
        name = os.path.basename(container.name)
        warn(warnings, f"{name}: skipped {damage.count} damaged {stream.type} packet(s) or frame(s).")


@dataclass
class _Damage:
    count: int = 0


def _packets(container: InputContainer, stream: VideoStream | AudioStream, damage: _Damage) -> Iterator[Packet]:
    """Packets of a stream, continuing after read errors until too many occur in a row."""
    consecutive_errors = 0
    while consecutive_errors < _MAX_READ_ERRORS:
        try:
            for packet in container.demux(stream):
                consecutive_errors = 0
                yield packet
            return
        except (FFmpegError, IndexError) as error:
            # PyAV raises IndexError on a packet of a stream that the header does not declare.
            consecutive_errors += 1
            damage.count += 1
            logger.debug("read error: %s", error)


def warn(warnings: list[str], message: str) -> None:
    """Log a warning and append it to the list, unless it is already there."""
    if message not in warnings:
        logger.warning("%s", message)
        warnings.append(message)
