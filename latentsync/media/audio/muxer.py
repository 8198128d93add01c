"""Puts the driving sound into an output file, cut or padded with silence to the picture's length."""

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
    """Sound of an output video: the main track of ``path`` at its own rate and channels.

    It is encoded anew, as AAC in mp4 and as FLAC in Matroska: packets can only be copied whole, so a copy could not
    end exactly with the picture, and neither could AAC in Matroska. ``bit_rate`` is that of AAC in bits per second for
    two channels or fewer; libav lowers what a low sample rate cannot use. ``warnings`` holds what has been told about
    the file already and gets what else could not be read.
    """

    path: str | os.PathLike[str]
    bit_rate: int = 256_000
    warnings: list[str] = field(default_factory=list)


class AudioMuxer:
    """Encodes the sound of a track alongside the picture, never further than the picture has come.

    Args:
        container: the output, before its first packet.
        track: the sound.
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
        """Encode whole decoded frames as far as they fit below ``seconds``."""
        limit = int(seconds * self._rate)
        while True:
            if self._pending is None:
                self._pending = next(self._frames, None)
            if self._pending is None or self._written + self._pending.samples > limit:
                return
            self._encode(self._pending)
            self._pending = None

    def finish(self, seconds: Fraction) -> None:
        """Bring the sound to exactly ``seconds``, by a cut or by silence, and flush the encoder."""
        limit = round(seconds * self._rate)
        self.advance(Fraction(limit, self._rate))
        left = limit - self._written
        if self._pending is not None and left > 0:
            self._encode(trim(self._pending, left))
        while (left := limit - self._written) > 0:
            self._encode(self._silence(min(left, _SILENCE_SAMPLES)))
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
