"""Audio reading: the model's mono waveform, and the original track as a stream of frames."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from latentsync.errors import MediaError
from latentsync.media.container import audio_stream, decode, open_input

# PyAV 18 reads past the end of the plane list when it converts planar frames of that many channels to an array.
_MIN_CRASHING_PLANES = 8


@dataclass(frozen=True)
class SpeechAudio:
    """Mono audio for the model.

    Attributes:
        waveform: (n,) float32 in [-1, 1), quantized to 16 bits.
        sample_rate: of the waveform in Hz.
        seconds: exact duration, counted in decoded samples at the file's own rate.
        warnings: what could not be read.
    """

    waveform: np.ndarray
    sample_rate: int
    seconds: Fraction
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleFormat:
    """Target of a conversion: libav's sample format, channel layout and rate (0 keeps the source rate)."""

    name: str
    layout: str
    rate: int


def load_speech(path: str | os.PathLike[str], sample_rate: int = 16000) -> SpeechAudio:
    """Decode the audio of any audio or video file to mono at ``sample_rate``.

    Raises:
        MediaError: the file cannot be opened, has no audio track, or the audio has zero length.
    """
    warnings: list[str] = []
    counter = _DurationCounter()
    frames = convert(counter.count(audio_frames(path, warnings)), SampleFormat("s16", "mono", sample_rate))
    chunks = [frame.to_ndarray().reshape(-1) for frame in frames]
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    if not samples.size:
        raise MediaError(f"The audio of {str(path)!r} has zero length. Give audio that contains speech.")
    waveform = samples.astype(np.float32) / 32768
    return SpeechAudio(waveform, sample_rate, counter.seconds, tuple(warnings))


def read_audio(path: str | os.PathLike[str], sample_rate: int = 16000) -> np.ndarray:
    """Decode the audio of a file to (n,) float32 mono in [-1, 1), quantized to 16 bits.

    Raises:
        MediaError: the file cannot be opened, has no audio track, or the audio has zero length.
    """
    return load_speech(path, sample_rate).waveform


def audio_seconds(path: str | os.PathLike[str]) -> Fraction:
    """Exact audio duration of a file in seconds, found by decoding it (mp3 and webm headers are only estimates).

    Raises:
        MediaError: the file cannot be opened or has no audio track.
    """
    counter = _DurationCounter()
    for _ in counter.count(audio_frames(path, [])):
        pass
    return counter.seconds


def audio_frames(path: str | os.PathLike[str], warnings: list[str]) -> Iterator[AudioFrame]:
    """Yield the decoded frames of a file's main audio track, unconverted.

    Args:
        path: of the file.
        warnings: warnings about unreadable data are appended.

    Raises:
        MediaError: the file cannot be opened or has no audio track.
    """
    with open_input(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{str(path)!r} has no audio track. Give an audio file, or a video file with audio.")
        last: AudioFrame | None = None
        for frame in decode(container, stream, AudioFrame, warnings):
            if frame.samples:
                if last is not None:
                    yield last
                last = frame
        if last is not None:
            # In mp4 the duration of the last packet excludes its padding; libav leaves trimming to the caller.
            valid = round((last.duration or 0) * (last.time_base or 0) * last.sample_rate)
            yield trim(last, valid) if 0 < valid < last.samples and "mp4" in container.format.name else last


def trim(frame: AudioFrame, samples: int) -> AudioFrame:
    """Return the first ``samples`` samples of a frame; planar frames of eight or more channels are not trimmed."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MIN_CRASHING_PLANES:
        return frame
    data = frame.to_ndarray()
    width = samples if frame.format.is_planar else samples * frame.layout.nb_channels
    trimmed = AudioFrame.from_ndarray(np.ascontiguousarray(data[:, :width]), frame.format.name, frame.layout.name)
    trimmed.sample_rate = frame.sample_rate
    trimmed.pts, trimmed.time_base = frame.pts, frame.time_base
    return trimmed


def convert(frames: Iterator[AudioFrame], target: SampleFormat) -> Iterator[AudioFrame]:
    """Resample frames, also where the source changes its rate or layout midway. Timestamps are dropped."""
    resampler: AudioResampler | None = None
    source: tuple[str, str, int] | None = None
    for frame in frames:
        frame.pts = None
        current = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or current != source:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, source = AudioResampler(target.name, target.layout, target.rate or None), current
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


class _DurationCounter:
    """Accumulates the duration of the frames that pass through."""

    def __init__(self) -> None:
        self.seconds = Fraction(0)

    def count(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """Yield the frames unchanged."""
        for frame in frames:
            self.seconds += Fraction(frame.samples, frame.sample_rate)
            yield frame
