"""Reading of sound: the model's mono waveform, and the original track as a stream of frames."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from latentsync.errors import MediaError
from latentsync.media.container import audio_stream, decode, open_input

# PyAV 18 reads past the end of the plane list of such frames when it makes an array of them.
_PLANES_THAT_CRASH = 8


@dataclass(frozen=True)
class SpeechAudio:
    """Mono sound for the model.

    Attributes:
        waveform: (n,) float32 in [-1, 1), quantised to 16 bits.
        sample_rate: of the waveform in Hz.
        seconds: exact length, counted in the file's own decoded samples.
        warnings: what could not be read.
    """

    waveform: np.ndarray
    sample_rate: int
    seconds: Fraction
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleFormat:
    """Target of a conversion: libav's sample format, channel layout and rate (0 keeps the source's)."""

    name: str
    layout: str
    rate: int


def load_speech(path: str | os.PathLike[str], sample_rate: int = 16000) -> SpeechAudio:
    """Decode the sound of any audio or video file to mono at ``sample_rate``.

    Raises:
        MediaError: the file cannot be opened, has no sound, or the sound has zero length.
    """
    warnings: list[str] = []
    counter = _Counter()
    frames = convert(counter.count(audio_frames(path, warnings)), SampleFormat("s16", "mono", sample_rate))
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    if not samples.size:
        raise MediaError(f"The sound of {str(path)!r} has zero length. Give audio that holds speech.")
    waveform = samples.astype(np.float32) / 32768
    return SpeechAudio(waveform, sample_rate, counter.seconds, tuple(warnings))


def read_audio(path: str | os.PathLike[str], sample_rate: int = 16000) -> np.ndarray:
    """Decode the sound of a file to (n,) float32 mono in [-1, 1), quantised to 16 bits.

    Raises:
        MediaError: the file cannot be opened, has no sound, or the sound has zero length.
    """
    return load_speech(path, sample_rate).waveform


def audio_seconds(path: str | os.PathLike[str]) -> Fraction:
    """Exact length of a file's sound in seconds, counted by decoding it (headers of mp3 and webm only estimate).

    Raises:
        MediaError: the file cannot be opened or has no sound.
    """
    counter = _Counter()
    for _ in counter.count(audio_frames(path, [])):
        pass
    return counter.seconds


def audio_frames(path: str | os.PathLike[str], warnings: list[str]) -> Iterator[AudioFrame]:
    """Yield the decoded frames of a file's main sound track as they are.

    Raises:
        MediaError: the file cannot be opened or has no sound.
    """
    with open_input(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no sound. Give an audio file, or a video file with a sound track.")
        last: AudioFrame | None = None
        for frame in decode(container, stream, AudioFrame, warnings):
            if frame.samples:
                if last is not None:
                    yield last
                last = frame
        if last is not None:
            # mp4 says by the last packet's duration how much of it is padding; libav leaves that to its caller.
            shown = round((last.duration or 0) * (last.time_base or 0) * last.sample_rate)
            yield trim(last, shown) if 0 < shown < last.samples and "mp4" in container.format.name else last


def trim(frame: AudioFrame, samples: int) -> AudioFrame:
    """The first ``samples`` samples of a frame; frames of eight planes and more come back whole."""
    if frame.format.is_planar and frame.layout.nb_channels >= _PLANES_THAT_CRASH:
        return frame
    data = frame.to_ndarray()
    width = samples if frame.format.is_planar else samples * frame.layout.nb_channels
    cut = AudioFrame.from_ndarray(np.ascontiguousarray(data[:, :width]), frame.format.name, frame.layout.name)
    cut.sample_rate = frame.sample_rate
    cut.pts, cut.time_base = frame.pts, frame.time_base
    return cut


def convert(frames: Iterator[AudioFrame], target: SampleFormat) -> Iterator[AudioFrame]:
    """Resample frames; a source that changes its rate or layout half-way is followed. Time stamps are dropped."""
    resampler: AudioResampler | None = None
    source: tuple[str, str, int] | None = None
    for frame in frames:
        frame.pts = None
        given = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or given != source:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, source = AudioResampler(target.name, target.layout, target.rate or None), given
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


class _Counter:
    """Adds up the length of the frames that pass through."""

    def __init__(self) -> None:
        self.seconds = Fraction(0)

    def count(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """Yield the frames unchanged."""
        for frame in frames:
            self.seconds += Fraction(frame.samples, frame.sample_rate)
            yield frame
