"""Muxes the driving audio into an output file, trimmed or padded with silence to the length of the video."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer

from latentsync.media.audio.reader import SampleFormat, audio_frames, convert, trim
from latentsync.media.probe import probe_audio

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
_SILENCE_SAMPLES = 1024


@dataclass(frozen=True)
class AudioTrack:
    """Audio of an output video: the main track of ``path`` at its own sample rate and channel layout.

    It is re-encoded, as AAC in mp4 and as FLAC in Matroska: packets can only be copied whole, so a stream copy could
    not end exactly with the video, and neither could AAC in Matroska. ``bit_rate`` applies to AAC, in bits per second
    for up to two channels; libav lowers it where the sample rate is too low to use it. ``warnings`` holds the warnings
    already reported for the file; new ones are appended.
    """

    path: str | os.PathLike[str]
    bit_rate: int = 256_000
    warnings: list[str] = field(default_factory=list)


class AudioMuxer:
    """Encodes an audio track interleaved with the video, never ahead of the frames written so far.

    Args:
        container: the output, before its first packet.
        track: the audio.

    Raises:
        MediaError: see `probe_audio`.
    """

    def __init__(self, container: OutputContainer, track: AudioTrack) -> None:
        info = probe_audio(track.path)
        self._container = container
        codec, self._format = ("flac", "s16") if container.format.name == "matroska" else ("aac", "fltp")
        self._rate = info.sample_rate
        if codec == "aac":
            self._rate = min((r for r in _AAC_RATES if r >= info.sample_rate), default=_AAC_RATES[0])
        self._layout = _LAYOUTS.get(info.channels, "stereo")
        target = SampleFormat(self._format, self._layout, self._rate)
        self._frames: Iterator[AudioFrame] = convert(audio_frames(Path(track.path), track.warnings), target)
        self._pending: AudioFrame | None = None
        self._written = 0
        self._stream = cast("AudioStream", container.add_stream(codec, rate=self._rate, layout=self._layout))
        self._context: AudioCodecContext = self._stream.codec_context
        if codec == "aac":
            self._context.bit_rate = track.bit_rate * max(1, self._context.layout.nb_channels // 2)

    def advance(self, seconds: Fraction) -> None:
        """Encode the decoded audio frames that end at or before ``seconds``."""
        limit = int(seconds * self._rate)
        while True:
            if self._pending is None:
                self._pending = next(self._frames, None)
            if self._pending is None or self._written + self._pending.samples > limit:
                return
            self._encode(self._pending)
            self._pending = None

    def finish(self, seconds: Fraction) -> None:
        """Trim or pad the audio to exactly ``seconds`` and flush the encoder."""
        limit = round(seconds * self._rate)
        self.advance(Fraction(limit, self._rate))
        remaining = limit - self._written
        if self._pending is not None and remaining > 0:
            self._encode(trim(self._pending, remaining))
        while (remaining := limit - self._written) > 0:
            self._encode(self._silence(min(remaining, _SILENCE_SAMPLES)))
        self._container.mux(self._stream.encode(None))

    def _silence(self, samples: int) -> AudioFrame:
        channels = self._context.layout.nb_channels
        if self._format == "fltp":
            frame = AudioFrame.from_ndarray(np.zeros((channels, samples), np.float32), "fltp", self._layout)
        else:
            frame = AudioFrame.from_ndarray(np.zeros((1, samples * channels), np.int16), "s16", self._layout)
        frame.sample_rate = self._rate
        return frame

    def _encode(self, frame: AudioFrame) -> None:
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._written
        self._written += frame.samples
        self._container.mux(self._stream.encode(frame))
