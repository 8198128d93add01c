"""Random access to windows of frames of short clips: opens the file once and converts only the requested frames."""

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


def read_frames(index: FrameIndex, frame_indices: Sequence[int], fps: Fraction | int) -> np.ndarray:
    """Decode selected frames of a clip.

    Args:
        index: of the clip; the file must not have changed since.
        frame_indices: of frames at the constant rate, in any order, repetitions allowed.
        fps: that rate.

    Returns:
        (len(frame_indices), h, w, 3) uint8 RGB as displayed.

    Raises:
        MediaError: the file can no longer be read or one of the frames is damaged.
    """
    wanted = index.pts_of(frame_indices, fps)
    with open_input(index.path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(
                f"{str(index.path)!r} no longer has a video stream: it was replaced since it was indexed. Run it again."
            )
        # Clips are short and read by several workers: decoder threads would only delay the first frame.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = _Converter().pixels(_decode(container, stream, index, sorted(set(wanted))))
    missing = next((pts for pts in wanted if pts not in frames), None)
    if missing is not None:
        seconds = float(missing * index.time_base - index.start)
        raise MediaError(f"{str(index.path)!r}: the frame at {seconds:.2f} s cannot be decoded. The file is damaged.")
    return np.stack([frames[pts] for pts in wanted])


class _Converter:
    """Converts decoded frames to RGB at the size of the first one."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._tags: ColorTags | None = None
        self._size = (0, 0)

    def pixels(self, frames: Iterator[tuple[int, VideoFrame]]) -> dict[int, np.ndarray]:
        """Convert (pts, frame) pairs to (h, w, 3) uint8 arrays by timestamp."""
        converted = {}
        for pts, frame in frames:
            if self._tags is None:
                self._tags, self._size = frame_tags(frame), (frame.width, frame.height)
            converted[pts] = orientation_of(frame).apply(to_rgb(frame, self._tags, self._reformatter, self._size))
        return converted


def _decode(
    container: InputContainer, stream: VideoStream, index: FrameIndex, sorted_pts: list[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the frames at the ascending timestamps, seeking to a later keyframe where that saves decoding."""
    for keyframe, run in _decode_runs(index, sorted_pts):
        yield from _decode_from(container, stream, keyframe, run)


def _decode_runs(index: FrameIndex, sorted_pts: list[int]) -> Iterator[tuple[int, set[int]]]:
    """Split ascending timestamps into sets to decode without seeking, each with the keyframe to start at."""
    keyframe, run = index.keyframe_before(sorted_pts[0]), {sorted_pts[0]}
    for previous, pts in pairwise(sorted_pts):
        next_keyframe = index.keyframe_before(pts)
        if next_keyframe != keyframe and not index.are_adjacent(previous, pts):
            yield keyframe, run
            keyframe, run = next_keyframe, set()
        run.add(pts)
    yield keyframe, run


def _decode_from(
    container: InputContainer, stream: VideoStream, keyframe: int, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    context = stream.codec_context
    remaining = set(wanted)
    try:
        for packet in _packets_from(container, stream, keyframe):
            # Skip non-reference frames that were not requested.
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from _filter_wanted(packet.decode(), wanted)
            remaining.discard(packet.pts)
            if not remaining:
                # The decoder delays frames for reordering; flushing is faster than feeding it more packets.
                yield from _filter_wanted(context.decode(None), wanted)
                return
    except AvEOFError:
        return
    except (FFmpegError, IndexError, StopIteration) as error:
        raise MediaError(f"{container.name!r} cannot be read further ({reason(error)}). It is damaged.") from error


def _packets_from(container: InputContainer, stream: VideoStream, keyframe: int) -> Iterator[Packet]:
    """Packets starting at the keyframe with timestamp ``keyframe``, or at an earlier one."""
    container.seek(keyframe, stream=stream, backward=True)
    packets = container.demux(stream)
    first = next(packets)
    if first.pts is not None and first.pts > keyframe:
        container.seek(0, backward=True)
        packets = container.demux(stream)
        first = next(packets)
    return chain([first], packets)


def _filter_wanted(frames: Iterable[object], wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    for frame in frames:
        if isinstance(frame, VideoFrame) and frame.pts in wanted and not frame.is_corrupt:
            yield frame.pts, frame
