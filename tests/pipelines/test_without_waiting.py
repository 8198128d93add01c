"""On a GPU the way from aligned frames to finished ones is only queued: nothing waits until pixels are read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.backends.placement import Placement
from latentsync.build.pipeline import build_pipeline
from latentsync.build.presets import ModelFiles
from latentsync.diffusion.denoise import SamplerOptions
from latentsync.face.compositing.restore import Blend, FaceRestorer
from latentsync.face.detection.mediapipe_detector import MediapipeDetector
from latentsync.face.geometry.affine import face_template, fit_affine
from latentsync.face.tracking.tracker import TrackedFace
from latentsync.pipelines.align import AlignedFrame
from latentsync.pipelines.compositor import Compositor
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine, window_audio
from latentsync.pipelines.output_frame import OutputFrame
from latentsync.pipelines.windows import plan_windows
from latentsync.profiling import StageClock
from latentsync.whisper.audio_windows import AudioWindows
from tests.tiny_models import TinyModels, write_tiny_models

COUNT, SIZE = 44, (320, 240)


def tiny_pipeline(models: TinyModels, device: torch.device, dtype: torch.dtype, keep_detail: bool) -> LipsyncEngine:
    parts = models.root / "demo"
    files = ModelFiles("tiny", models.config, models.unet, parts / "audio_encoder.safetensors", parts / "vae")
    pipeline = build_pipeline(files, Placement((device,), dtype), MediapipeDetector)
    pipeline.generator.keep_detail = keep_detail  # type: ignore[attr-defined]
    pipeline.generator.window_batch_size = 2
    return pipeline


def aligned_frames(resolution: int) -> Iterator[AlignedFrame]:
    """A face that moves, grows and fades, is missing for a while, and hangs over the border at the end."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    shape = (face_template(256) - face_template(256).mean(axis=0)) / 114.8
    for index in range(COUNT):
        points = shape * (30 + index) + np.array([100 + 5 * index, 90])
        matrix = np.asarray(fit_affine(points[None], face_template(resolution))[0], np.float32)
        found = not 12 <= index < 15
        face = TrackedFace(index, matrix if found else None, 0.5 if index in (11, 15) else float(found), None)
        yield AlignedFrame(index, np.roll(noise, index, axis=0), face)


def finished_frames(pipeline: LipsyncEngine, blend: Blend, audio: AudioWindows) -> list[OutputFrame]:
    clock = StageClock(pipeline.device)
    options = SamplerOptions(steps=2, guidance_scale=1.5, published=blend == "published")
    pipeline.generator.start(7, options, clock)
    restorer = FaceRestorer(pipeline.generator.resolution, blend, pipeline.mask)
    compositor = Compositor(pipeline.generator, restorer, pipeline.device, clock)
    plan = list(plan_windows(COUNT, 16, "blend"))
    frames = aligned_frames(pipeline.generator.resolution)
    return list(compositor.run(frames, plan, lambda window: window_audio(audio, window)))


def speech(pipeline: LipsyncEngine) -> AudioWindows:
    waveform: Tensor = torch.rand(2 * 16000, generator=torch.Generator().manual_seed(0)) - 0.5
    return AudioWindows(pipeline.audio_encoder, waveform, Fraction(25), COUNT)


def test_the_run_makes_every_frame(tmp_path: Path) -> None:
    """What the GPU's test below relies on, where there is none."""
    pipeline = tiny_pipeline(write_tiny_models(tmp_path / "models"), torch.device("cpu"), torch.float32, True)
    frames = finished_frames(pipeline, "mask", speech(pipeline))
    assert [frame.generated for frame in frames] == [not 12 <= index < 15 for index in range(COUNT)]
    assert all((frame.pixels != frame.source).any() for frame in frames if frame.generated)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("blend", "keep_detail"), [("mask", True), ("mask", False), ("published", False)])
def test_nothing_waits_for_the_gpu(blend: Blend, keep_detail: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(write_tiny_models(tmp_path / "models"), torch.device("cuda"), dtype, keep_detail)
    expected = [frame.pixels for frame in finished_frames(pipeline, blend, speech(pipeline))]  # loads libraries
    audio = speech(pipeline)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        frames = finished_frames(pipeline, blend, audio)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for frame, pixels in zip(frames, expected, strict=True):
        assert np.array_equal(frame.source, next_source(frame.index))
        assert np.abs(frame.pixels.astype(int) - pixels).mean() < 0.5


def next_source(index: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return np.roll(noise, index, axis=0)
