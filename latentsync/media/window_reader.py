"""Random access to windows of frames of small clips: one opening, only the needed frames converted."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise

import numpy as np
from av.container import InputContainer
from av.error import EOFError as AvEOFError
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from latentsync.errors import MediaError
from latentsync.media.color import ColorTags, frame_tags, to_rgb
from latentsync.media.container import open_input, reason, video_stream
from latentsync.media.frame_index import FrameIndex
from latentsync.media.probe import orientation_of


def read_frames(index: FrameIndex, numbers: Sequence[int], fps: Fraction | int) -> np.ndarray:
    """Decode chosen frames of a clip.

    Args:
        index: of the clip, as its file is now.
        numbers: of frames at the constant rate, in any order, also repeated.
        fps: that rate.

    Returns:
        (len(numbers), h, w, 3) uint8 RGB as displayed.

    Raises:
        MediaError: the file can no longer be read or one of the frames is damaged.
    """
    stamps = index.stamps(numbers, fps)
    with open_input(index.path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{str(index.path)!r} has lost its picture since it was indexed. Was it replaced?")
        # A clip is small and several workers read: threads inside a decoder only add delay before the first frame.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        found = _Converter().pixels(_decode(container, stream, index, sorted(set(stamps))))
    missing = next((stamp for stamp in stamps if stamp not in found), None)
    if missing is not None:
        seconds = float(missing * index.time_base - index.start)
        raise MediaError(f"{str(index.path)!r}: the frame at {seconds:.2f} s cannot be decoded. The file is damaged.")
    return np.stack([found[stamp] for stamp in stamps])


class _Converter:
    """Turns decoded frames into RGB pictures of one size, that of the first."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._tags: ColorTags | None = None
        self._size = (0, 0)

    def pixels(self, frames: Iterator[tuple[int, VideoFrame]]) -> dict[int, np.ndarray]:
        """(h, w, 3) uint8 by time stamp."""
        found = {}
        for stamp, frame in frames:
            if self._tags is None:
                self._tags, self._size = frame_tags(frame), (frame.width, frame.height)
            found[stamp] = orientation_of(frame).apply(to_rgb(frame, self._tags, self._reformatter, self._size))
        return found


def _decode(
    container: InputContainer, stream: VideoStream, index: FrameIndex, stamps: list[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the frames at growing ``stamps``, going over key frames without decoding where that is shorter."""
    for key, stretch in _stretches(index, stamps):
        yield from _decode_from(container, stream, key, stretch)


def _stretches(index: FrameIndex, stamps: list[int]) -> Iterator[tuple[int, set[int]]]:
    """Cut growing ``stamps`` into sets that are best decoded in one go, each with the key frame to begin at."""
    key, stretch = index.keyframe_before(stamps[0]), {stamps[0]}
    for previous, stamp in pairwise(stamps):
        next_key = index.keyframe_before(stamp)
        if next_key != key and not index.are_adjacent(previous, stamp):
            yield key, stretch
            key, stretch = next_key, set()
        stretch.add(stamp)
    yield key, stretch


def _decode_from(
    container: InputContainer, stream: VideoStream, key: int, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    context = stream.codec_context
    left = set(wanted)
    try:
        for packet in _packets_from(container, stream, key):
            # A frame that no other one needs is not decoded unless it is wanted itself.
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from _wanted(packet.decode(), wanted)
            left.discard(packet.pts)
            if not left:
                # The decoder holds frames back to sort them; emptying it is quicker than pushing them out.
                yield from _wanted(context.decode(None), wanted)
                return
    except AvEOFError:
        return
    except (FFmpegError, IndexError, StopIteration) as error:
        raise MediaError(f"{container.name!r} cannot be read further ({reason(error)}). It is damaged.") from error


def _packets_from(container: InputContainer, stream: VideoStream, key: int) -> Iterator[Packet]:
    """Packets from the key frame ``key`` on, or from an earlier one."""
    container.seek(key, stream=stream, backward=True)
    packets = container.demux(stream)
    first = next(packets)
    if first.pts is not None and first.pts > key:
        container.seek(0, backward=True)
        packets = container.demux(stream)
        first = next(packets)
    return chain([first], packets)


def _wanted(frames: Iterable[object], wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    for frame in frames:
        if isinstance(frame, VideoFrame) and frame.pts in wanted and not frame.is_corrupt:
            yield frame.pts, frame
