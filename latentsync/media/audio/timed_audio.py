"""Audio on the container clock: tracks that start late or early or have gaps keep their timing.

`latentsync.media.audio.reader` reads a track from its first sample, which is right for driving speech. For a clip
whose audio was shifted by timestamps alone (``ffmpeg -itsoffset ... -c copy``) that would undo the shift.
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
    """Decode the audio of a file such that sample n plays ``n / sample_rate`` seconds after ``origin``.

    Args:
        path: of the file.
        origin: seconds on the container clock, such as `FrameIndex.start`. Earlier audio is dropped; audio that starts
            later is padded with silence.
        sample_rate: of the result in Hz.

    Returns:
        (n,) float32 mono in [-1, 1), quantized to 16 bits.

    Raises:
        MediaError: the file cannot be opened, has no audio track, or its audio ends before ``origin``.
    """
    frames = audio_frames(path, [])
    first = next(frames, None)
    offset = Fraction(0) if first is None else _time(first, origin) - origin
    if abs(offset) > _MAX_GAP:
        raise MediaError(
            f"The audio of {str(path)!r} starts {float(offset):.0f} s away from its video. Its timestamps are wrong; "
            "remux or re-export the file."
        )
    frames = frames if first is None else _fill_gaps(chain([first], frames))
    chunks = [frame.to_ndarray().reshape(-1) for frame in convert(frames, SampleFormat("s16", "mono", sample_rate))]
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    shift = round(offset * sample_rate)
    samples = np.pad(samples, (shift, 0)) if shift > 0 else samples[-shift:]
    if not samples.size:
        raise MediaError(
            f"{str(path)!r} has no audio during its video: the track is empty or ends before the first frame."
        )
    return samples.astype(np.float32) / 32768


def _time(frame: AudioFrame, default: Fraction) -> Fraction:
    return default if frame.pts is None or not frame.time_base else frame.pts * Fraction(frame.time_base)


def _fill_gaps(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Insert silence at gaps in the timestamps, as damaged or edited tracks have."""
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
