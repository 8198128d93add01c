"""Sound on the clock of its container: a track that starts late or early, or has a hole, keeps its place in time.

`latentsync.media.audio.reader` reads a track from its first sample on, which is right for a driving speech. In a clip
whose sound was moved by time stamps alone (``ffmpeg -itsoffset ... -c copy``) that would undo the move.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import numpy as np
from av.audio.frame import AudioFrame

from latentsync.errors import MediaError
from latentsync.media.audio.reader import SampleFormat, audio_frames, convert

_MIN_GAP = Fraction(1, 20)
_MAX_GAP = 600


def read_timed_audio(path: str | os.PathLike[str], origin: Fraction, sample_rate: int = 16000) -> np.ndarray:
    """Decode the sound of a file so that sample n is what is heard ``n / sample_rate`` seconds after ``origin``.

    Args:
        path: of the file.
        origin: seconds on the clock of the container, such as `FrameIndex.start`; what is heard before it is left out,
            silence fills the time between it and the first sound.
        sample_rate: of the result in Hz.

    Returns:
        (n,) float32 mono in [-1, 1), quantised to 16 bits.

    Raises:
        MediaError: the file cannot be opened, has no sound, or its sound ends before ``origin``.
    """
    frames = audio_frames(path, [])
    first = next(frames, None)
    begins = Fraction(0) if first is None else _time(first, origin) - origin
    if abs(begins) > _MAX_GAP:
        raise MediaError(
            f"The sound of {str(path)!r} starts {float(begins):.0f} s from its picture. Its times are wrong."
        )
    frames = frames if first is None else _fill_gaps(chain([first], frames))
    pieces = [frame.to_ndarray().reshape(-1) for frame in convert(frames, SampleFormat("s16", "mono", sample_rate))]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    shift = round(begins * sample_rate)
    samples = np.pad(samples, (shift, 0)) if shift > 0 else samples[-shift:]
    if not samples.size:
        raise MediaError(f"{str(path)!r} has no sound beside its picture: the track is empty or ends before it.")
    return samples.astype(np.float32) / 32768


def _time(frame: AudioFrame, default: Fraction) -> Fraction:
    return default if frame.pts is None or not frame.time_base else frame.pts * Fraction(frame.time_base)


def _fill_gaps(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Put silence where the time stamps leave something out, as damaged or cut tracks do."""
    expected: Fraction | None = None
    for frame in frames:
        time = _time(frame, Fraction(0) if expected is None else expected)
        gap = Fraction(0) if expected is None else time - expected
        if _MIN_GAP <= gap <= _MAX_GAP:
            yield _silence(frame, round(gap * frame.sample_rate))
        expected = max(time, expected or time) + Fraction(frame.samples, frame.sample_rate)
        yield frame


def _silence(like: AudioFrame, samples: int) -> AudioFrame:
    data = np.zeros_like(like.to_ndarray()[:, :1])
    planes = np.repeat(data, samples if like.format.is_planar else samples * like.layout.nb_channels, axis=1)
    silent = AudioFrame.from_ndarray(planes, like.format.name, like.layout.name)
    silent.sample_rate = like.sample_rate
    return silent
