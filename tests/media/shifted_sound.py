"""Clips with a click in their audio, and the same clips with the audio shifted by timestamps only."""

from pathlib import Path

import av
import numpy as np

RATE = 16000


def click_track(seconds: float, click: float, rate: int = RATE) -> np.ndarray:
    """(n,) int16 silence with one loud click."""
    samples = np.zeros(round(seconds * rate), np.int16)
    middle = round(click * rate)
    samples[middle - rate // 800 : middle + rate // 800] = 30000
    return samples


def write_clip(path: Path, frames: np.ndarray, sound: np.ndarray | None, rate: int = RATE, fps: int = 25) -> Path:
    """Write (t, h, w, 3) uint8 frames and (n,) int16 mono audio as H.264 with B-frames and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "veryfast", "g": "12"})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=rate, layout="mono")
        for pixels in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], "s16", "mono")
            frame.sample_rate, frame.pts = rate, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def shift_sound(source: Path, target: Path, seconds: float) -> Path:
    """Copy both streams with shifted audio timestamps, as ``ffmpeg -itsoffset seconds ... -c copy`` does."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None:
                continue
            if reader.streams[packet.stream_index].type == "audio":
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = streams[packet.stream_index]
            writer.mux(packet)
    return target
