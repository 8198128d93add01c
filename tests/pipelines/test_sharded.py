"""Several devices make the video that one makes; two CPU "devices" stand for two GPUs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.backends.placement import Placement
from latentsync.build.pipeline import build_pipeline
from latentsync.build.presets import ModelFiles
from latentsync.cli.inference import inference_parser, prepare_benchmark
from latentsync.diffusion.denoise import SamplerOptions
from latentsync.face.detection.mediapipe_detector import MediapipeDetector
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.generator import DiffusionGenerator, FaceGenerator, WindowInput
from latentsync.pipelines.sharded import ShardedGenerator
from latentsync.profiling import StageClock
from tests.tiny_models import WIDTH, TinyModels, write_tiny_models

CPU = torch.device("cpu")
FRAMES = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return write_tiny_models(tmp_path_factory.mktemp("sharded") / "models")


def generator_on(models: TinyModels, devices: list[torch.device], keep_detail: bool = True) -> Any:
    parts = models.root / "demo"
    files = ModelFiles("tiny", models.config, models.unet, parts / "audio_encoder.safetensors", parts / "vae")
    generator = build_pipeline(files, Placement(tuple(devices)), MediapipeDetector).generator
    for each in generators_of(generator):
        each.keep_detail = keep_detail
    return generator


def generators_of(generator: Any) -> list[DiffusionGenerator]:
    if isinstance(generator, ShardedGenerator):
        return [shard.generator for shard in generator._shards]
    return [generator]


def made_windows(count: int) -> list[WindowInput]:
    draw = torch.Generator().manual_seed(count)
    return [
        WindowInput(
            torch.randint(0, 256, (FRAMES, 3, 64, 64), generator=draw, dtype=torch.uint8),
            torch.randn(FRAMES, 50, WIDTH, generator=draw),
        )
        for _ in range(count)
    ]


def video(generator: FaceGenerator, windows: list[WindowInput], options: SamplerOptions) -> Iterator[Tensor]:
    """Codes and faces of the windows, as many at once as the generator takes."""
    generator.start(7, options, StageClock(CPU))
    step = generator.window_batch_size
    for first in range(0, len(windows), step):
        group = windows[first : first + step]
        codes = generator.sample_windows(group)
        assert len(codes) == len(group)
        yield from codes
        yield from generator.decode(torch.cat(codes), torch.cat([window.faces for window in group]))


def sorted_out(parts: Iterator[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """All codes, and all faces, each in order."""
    everything = list(parts)
    return [each for each in everything if each.ndim == 4], [each for each in everything if each.ndim == 3]


def assert_same_video(
    one: FaceGenerator, other: FaceGenerator, windows: list[WindowInput], options: SamplerOptions
) -> None:
    expected, found = (sorted_out(video(generator, windows, options)) for generator in (one, other))
    for true, made in zip(expected, found, strict=True):
        for pair in zip(made, true, strict=True):
            torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


@pytest.mark.parametrize("published", [False, True], ids=["blend", "published"])
@pytest.mark.parametrize("keep_detail", [False, True])
@pytest.mark.parametrize(("devices", "count"), [(2, 1), (2, 5), (3, 4)])
def test_several_devices_make_what_one_makes(
    models: TinyModels, devices: int, count: int, keep_detail: bool, published: bool
) -> None:
    windows = made_windows(count)
    options = SamplerOptions(steps=2, guidance_scale=1.5, published=published)
    one = generator_on(models, [CPU], keep_detail)
    several = generator_on(models, [CPU] * devices, keep_detail)
    assert (several.window_batch_size, several.resolution) == (devices, one.resolution)
    for window_batch_size in (devices, 1):  # a second video begins anew
        one.window_batch_size = window_batch_size
        expected, found = (sorted_out(video(generator, windows, options)) for generator in (one, several))
        # How many windows or frames are computed together changes rounding, how many devices there are does not.
        tolerance = 0.0 if window_batch_size == 1 else 1e-4
        for pair in zip(found[0], expected[0], strict=True):
            torch.testing.assert_close(*pair, atol=tolerance, rtol=0)
        torch.testing.assert_close(torch.stack(found[1]), torch.stack(expected[1]), atol=1e-4, rtol=0)


def test_each_device_may_take_several_windows_at_once(models: TinyModels) -> None:
    windows, options = made_windows(7), SamplerOptions(steps=1, guidance_scale=1.0)
    one, parts = generator_on(models, [CPU]), generators_of(generator_on(models, [CPU, CPU]))
    for each in parts:
        each.window_batch_size = 2
    two = ShardedGenerator(parts)
    one.window_batch_size = two.window_batch_size
    assert two.window_batch_size == 4
    assert_same_video(one, two, windows, options)


class Meeting:
    """A predictor that goes on only when those of all devices have begun a window."""

    def __init__(self, predictor: Any, barrier: threading.Barrier) -> None:
        self._predictor, self._barrier = predictor, barrier

    def begin(self, *arguments: Tensor) -> None:
        self._barrier.wait(timeout=60)
        self._predictor.begin(*arguments)

    def predict(self, *arguments: Any) -> Tensor:
        made: Tensor = self._predictor.predict(*arguments)
        return made


def test_devices_work_at_the_same_time_on_a_window_each(models: TinyModels) -> None:
    generator, options = generator_on(models, [CPU, CPU]), SamplerOptions(steps=1, guidance_scale=1.0)
    windows = made_windows(2)
    expected, _ = sorted_out(video(generator, windows, options))  # what is new to a device, it does alone
    barrier = threading.Barrier(2)
    for each in generators_of(generator):
        each.predictor = Meeting(each.predictor, barrier)
    found, _ = sorted_out(video(generator, windows, options))
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


class Failing:
    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        raise RuntimeError("the device fell off")

    def predict(self, *_: Any) -> Tensor:
        raise AssertionError("never begun")


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
def test_an_error_on_any_device_surfaces_and_the_next_video_is_right(
    models: TinyModels, broken: int, known: bool
) -> None:
    generator, options = generator_on(models, [CPU, CPU]), SamplerOptions(steps=1, guidance_scale=1.0)
    windows = made_windows(4)
    if known:
        list(video(generator, windows, options))
    shard = generators_of(generator)[broken]
    working, shard.predictor = shard.predictor, Failing()
    with pytest.raises(RuntimeError, match="the device fell off"):
        list(video(generator, windows, options))
    shard.predictor = working
    one = generator_on(models, [CPU])
    one.window_batch_size = 2
    assert_same_video(one, generator, windows, options)


def test_threads_end_with_the_generator(models: TinyModels) -> None:
    before = set(threading.enumerate())
    generator = generator_on(models, [CPU, CPU, CPU])
    list(video(generator, made_windows(3), SamplerOptions(steps=1, guidance_scale=1.0)))
    workers = set(threading.enumerate()) - before
    assert len(workers) == 3
    del generator
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)


def test_whole_videos_differ_in_rounding_alone(models: TinyModels, tmp_path: Path) -> None:
    frames: list[np.ndarray] = []
    for devices, memory in (("cpu", "usual"), ("cpu,cpu", "usual"), ("cpu", "low"), ("cpu,cpu", "low")):
        words = [*models.options, "--device", "auto", "--devices", devices, "--memory", memory]
        words += ["--dtype", "float32", "--preview", "1.2", "--guidance_scale", "1.5", "--crf", "0", "--overwrite"]
        pipeline, job = prepare_benchmark(inference_parser().parse_args(words), tmp_path / "out.mp4")
        result = pipeline(job)
        assert (result.settings["device"], result.settings["memory"]) == (devices, memory)
        assert result.generated_frames == result.num_frames == 30
        frames.append(np.stack([frame.pixels for frame in VideoReader(result.video_out_path)]).astype(int))
    for other in frames[1:]:
        difference = np.abs(frames[0] - other)
        assert difference.max() <= 3 and (difference > 0).mean() < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("published", [False, True], ids=["blend", "published"])
def test_several_gpus_make_what_one_makes(models: TinyModels, published: bool) -> None:
    """With one GPU, the same one twice."""
    count = max(2, torch.cuda.device_count())
    gpus = [torch.device("cuda", index % torch.cuda.device_count()) for index in range(count)]
    parts = models.root / "demo"
    files = ModelFiles("tiny", models.config, models.unet, parts / "audio_encoder.safetensors", parts / "vae")
    options = SamplerOptions(steps=2, guidance_scale=1.5, published=published)
    windows = [
        WindowInput(window.faces.to(gpus[0]), window.audio.to(gpus[0])) for window in made_windows(2 * count + 1)
    ]
    made = []
    for devices in (gpus[:1], gpus):
        generator = build_pipeline(files, Placement(tuple(devices), torch.float16), MediapipeDetector).generator
        for _ in range(2):
            codes, faces = sorted_out(video(generator, windows, options))
        assert all(each.device == gpus[0] for each in codes + faces)
        made.append(torch.stack(faces).cpu())
    torch.testing.assert_close(made[1], made[0], atol=2e-2, rtol=0)
