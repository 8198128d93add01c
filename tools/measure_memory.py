"""Compare the peak memory of a long video with that of a short one, without the U-Net and the VAE.

    python -m tools.measure_memory --seconds 10 300 --size 1080x1920

Writes videos that play the bundled clip forward and backward, with speech of the same length, runs each through the
pipeline with a pass-through generator in a separate process, and prints the peaks as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import wave
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from latentsync.build.pipeline import build_face_detector
from latentsync.checkpoints.registry import default_root, resolve
from latentsync.face.compositing.masks import load_mask
from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.timeline import TimelineReader
from latentsync.media.video_writer import VideoWriter, WriterOptions
from latentsync.pipelines.generator import PassThroughGenerator
from latentsync.pipelines.job import LipsyncJob
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine
from latentsync.runtime.resources import REPOSITORY
from latentsync.whisper.audio_encoder import load_audio_encoder

FPS = Fraction(25)
RESOLUTION = 256


def make_clip(folder: Path, seconds: float, size: tuple[int, int]) -> Path:
    """Write the bundled clip, played forward and backward, in frames of size (width, height) for ``seconds``."""
    path = folder / f"{seconds:g}.mp4"
    width, height = size
    side = min(size)
    audio = AudioTrack(REPOSITORY / "assets" / "demo_speech.wav")
    with VideoWriter(path, width, height, FPS, audio, WriterOptions(crf=26, preset="ultrafast")) as writer:
        for _, _, pixels in TimelineReader(REPOSITORY / "assets" / "demo_video.mp4", FPS, round(seconds * FPS)):
            frame: NDArray[np.uint8] = np.full((height, width, 3), 90, np.uint8)
            frame[:side, :side] = cv2.resize(pixels, (side, side))
            writer.write(frame)
    return path


def run(video: Path, audio: Path, out: Path) -> None:
    """Run the pipeline with the pass-through generator."""
    cpu = torch.device("cpu")
    encoder = load_audio_encoder(resolve("demo-audio-encoder", default_root()), cpu, torch.float32)
    make_detector = build_face_detector("auto", default_root(), cpu)
    generator = PassThroughGenerator(RESOLUTION)
    pipeline = LipsyncEngine(generator, encoder, make_detector, load_mask("mask", RESOLUTION), cpu)
    pipeline(LipsyncJob(video, audio, out))


def peak_mebibytes(video: Path, audio: Path, out: Path) -> float:
    """Peak resident memory of `run` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, video, audio, out))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{video}: the run failed with exit code {process.exitcode}")
    return float(receiver.recv())


def _measure(sender: Connection, video: Path, audio: Path, out: Path) -> None:
    run(video, audio, out)
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def make_speech(folder: Path, seconds: float) -> Path:
    """Write the bundled speech, repeated to last ``seconds``."""
    path = folder / f"{seconds:g}.wav"
    with wave.open(str(REPOSITORY / "assets" / "demo_speech.wav")) as source:
        params = source.getparams()
        samples = np.frombuffer(source.readframes(params.nframes), np.int16)
    with wave.open(str(path), "wb") as target:
        target.setparams(params)
        target.writeframes(np.resize(samples, round(seconds * params.framerate)).tobytes())
    return path


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 300])
    parser.add_argument("--size", default="1080x1920", help="WIDTHxHEIGHT (%(default)s)")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in options.seconds:
            clip = make_clip(folder, seconds, (width, height))
            peaks[seconds] = peak_mebibytes(clip, make_speech(folder, seconds), folder / f"out_{seconds:g}.mp4")
    print(
        json.dumps({"size": options.size, "peak_mebibytes": peaks, "spread": max(peaks.values()) - min(peaks.values())})
    )


if __name__ == "__main__":
    main()
