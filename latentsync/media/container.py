"""Opening of media files and robust decoding of one of their streams, with libav's errors turned into ours."""

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
        MediaError: the file is missing, a folder, empty, not readable, or nothing that libav knows.
    """
    file = Path(path)
    if not os.path.exists(file):
        raise MediaError(f"Cannot open {str(file)!r}: there is no such file. Check the path.")
    if os.path.isdir(file):
        raise MediaError(f"Cannot open {str(file)!r}: it is a folder. Give one video or audio file.")
    if not os.access(file, os.R_OK):
        raise MediaError(f"Cannot open {str(file)!r}: reading it is not permitted. Change its permissions.")
    if os.path.isfile(file) and os.path.getsize(file) == 0:
        raise MediaError(f"Cannot open {str(file)!r}: the file is empty (0 bytes). Copy or export it again.")
    try:
        # An absolute path cannot be mistaken for a protocol ("concat:...", "a:b.mp4").
        opened = av.open(os.path.abspath(file), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        raise MediaError(
            f"Cannot read {str(file)!r} as video or audio ({reason(error)}). It is damaged, cut off before its index, "
            "or no media file at all; play it to check, or convert it to mp4 or wav."
        ) from error
    if opened.format.name in _TEXT_FORMATS:
        opened.close()
        raise MediaError(f"Cannot read {str(file)!r}: it is a text file. Give a video or audio file.")
    return opened


def reason(error: Exception) -> str:
    """Libav's own words for an error, without its number."""
    return str(getattr(error, "strerror", None) or error)


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main moving picture of a file: cover art does not count."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        return None
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in pictures else pictures[0]


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The main sound of a file."""
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) else None


def decode(
    container: InputContainer, stream: VideoStream | AudioStream, kind: type[FrameT], warnings: list[str]
) -> Iterator[FrameT]:
    """Decode a stream from the container's position to its end, past damage where that is possible.

    Args:
        container: an open file.
        stream: one of its streams.
        kind: VideoFrame or AudioFrame, as the stream is.
        warnings: gets one sentence at the end if anything could not be read.
    """
    damage = _Damage()
    for packet in _packets(container, stream, damage):
        try:
            frames = packet.decode()
        except AvEOFError:
            break
        except FFmpegError:
            damage.pieces += 1
            continue
        usable = [frame for frame in frames if isinstance(frame, kind) and not frame.is_corrupt]
        damage.pieces += len(frames) - len(usable)
        yield from usable
    if damage.pieces:
        name = os.path.basename(container.name)
        warn(warnings, f"{name}: {damage.pieces} damaged piece(s) of {stream.type} could not be read, left out.")


@dataclass
class _Damage:
    pieces: int = 0


def _packets(container: InputContainer, stream: VideoStream | AudioStream, damage: _Damage) -> Iterator[Packet]:
    """Packets of a stream, going on after read errors until they follow each other without an end."""
    in_a_row = 0
    while in_a_row < _MAX_READ_ERRORS:
        try:
            for packet in container.demux(stream):
                in_a_row = 0
                yield packet
            return
        except (FFmpegError, IndexError) as error:
            # PyAV raises IndexError on a packet of a stream that the header did not announce.
            in_a_row += 1
            damage.pieces += 1
            logger.debug("read error: %s", error)


def warn(warnings: list[str], message: str) -> None:
    """Log a warning and keep it, once."""
    if message not in warnings:
        logger.warning("%s", message)
        warnings.append(message)
