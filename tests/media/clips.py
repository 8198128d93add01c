"""Small generated clips whose frames encode their index, so that a test can identify each decoded frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from latentsync.media.color import ColorTags, from_rgb

BITS = 8


@dataclass(frozen=True)
class Clip:
    """Parameters of a test clip; ``times`` are the frame times in seconds."""

    times: Sequence[Fraction]
    size: tuple[int, int] = (128, 96)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10", "preset": "ultrafast"})
    muxing: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    color: ColorTags = field(default_factory=ColorTags)
    tone_seconds: float = 0.0
    time_base: Fraction = Fraction(1, 90000)
    rate: Fraction | None = None


def steady(count: int, fps: Fraction | int = 25) -> list[Fraction]:
    """Frame times at a constant rate."""
    return [Fraction(i) / fps for i in range(count)]


def numbered(index: int, width: int, height: int) -> np.ndarray:
    """Frame with ``index`` as black and white blocks in the upper half and a color ramp in the lower half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    block = width // BITS
    for bit in range(BITS):
        pixels[: height // 2, bit * block : (bit + 1) * block] = 235 if index >> bit & 1 else 20
    ramp = np.linspace(60, 190, width).astype(np.uint8)
    pixels[height // 2 :] = np.stack([ramp, ramp[::-1], np.full(width, 60 + index % 100, np.uint8)], -1)
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Decode the index drawn by ``numbered`` from (h, w, 3) pixels."""
    height, width = pixels.shape[:2]
    block = width // BITS
    row = pixels[height // 4, :, 1]
    return sum(1 << bit for bit in range(BITS) if row[bit * block + block // 2] > 128)


def tone(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """(channels, n) int16 sine."""
    wave = 8000 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.int16)[None], channels, 0)


def write_tone(path: Path, seconds: float, rate: int = 16000, channels: int = 1) -> Path:
    """Write a sine as a .wav (or whatever the extension says)."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".m4a" else "pcm_s16le", rate=rate, layout=layout)
        _encode_tone(container, stream, tone(seconds, rate, channels), rate, layout)
    return path


def make_clip(path: Path, clip: Clip) -> Path:
    """Write the clip; frame i encodes the index i."""
    width, height = clip.size
    reformatter = VideoReformatter()
    with av.open(str(path), "w", options=dict(clip.muxing)) as container:
        stream: Any = container.add_stream(clip.codec, rate=clip.rate or _rate(clip.times), options=dict(clip.options))
        stream.width, stream.height, stream.pix_fmt = width, height, clip.pix_fmt
        stream.codec_context.time_base = clip.time_base
        stream.codec_context.colorspace, stream.codec_context.color_range = clip.color.matrix, clip.color.range
        stream.codec_context.color_primaries = clip.color.primaries
        stream.codec_context.color_trc = clip.color.transfer
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if clip.tone_seconds else None
        for index, time in enumerate(clip.times):
            frame = from_rgb(numbered(index, width, height), clip.pix_fmt, clip.color, reformatter)
            frame.pts, frame.time_base = round(time / clip.time_base), clip.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _encode_tone(container, sound, tone(clip.tone_seconds), 16000, "mono")
    return path


def _rate(times: Sequence[Fraction]) -> Fraction:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else Fraction(25)


def _encode_tone(container, stream, samples: np.ndarray, rate: int, layout: str) -> None:
    frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), "s16", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    if samples.shape[1]:
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
