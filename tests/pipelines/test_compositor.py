"""The stages between decoder and encoder on small made-up streams, with a generator whose output can be predicted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.diffusion.denoise import SamplerOptions
from latentsync.face.compositing.restore import FaceRestorer
from latentsync.face.geometry.affine import crop_size, face_template, fit_affine
from latentsync.face.tracking.tracker import TrackedFace
from latentsync.pipelines.align import AlignedFrame
from latentsync.pipelines.compositor import Compositor
from latentsync.pipelines.generator import WindowInput
from latentsync.pipelines.output_frame import OutputFrame
from latentsync.pipelines.silent_frames import keep_silent_frames
from latentsync.pipelines.windows import Window, WindowMode, plan_windows
from latentsync.profiling import StageClock

RESOLUTION = 64
CPU = torch.device("cpu")


class BrightnessGenerator:
    """Paints every face in one grey level: the level of the window that made it, or blends of neighbouring ones."""

    resolution = RESOLUTION

    def __init__(self, window_batch_size: int = 1) -> None:
        self.window_batch_size = window_batch_size
        self.calls: list[int] = []
        self.face_keys: list[tuple[Hashable, Tensor]] = []

    def start(self, seed: int, options: SamplerOptions, clock: StageClock) -> None:
        pass

    def sample_windows(self, windows: Sequence[WindowInput]) -> list[Tensor]:
        return [self.sample(window) for window in windows]

    def sample(self, window: WindowInput) -> Tensor:
        self.calls.append(len(window.faces))
        self.face_keys.extend(zip(window.face_keys or (), window.faces, strict=True))
        return torch.full((len(window.faces), 1), float(len(self.calls)))

    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        return (codes[..., None, None] / 10).expand(-1, 3, RESOLUTION, RESOLUTION)


def matrix() -> np.ndarray:
    width, height = crop_size(RESOLUTION)
    points = face_template(RESOLUTION) + np.array([20.0, 10.0], np.float32)
    return np.asarray(fit_affine(points[None], face_template(RESOLUTION))[0], np.float32)


def frames(count: int, without: frozenset[int] = frozenset()) -> Iterator[AlignedFrame]:
    for index in range(count):
        pixels = np.full((120, 120, 3), index % 200, np.uint8)
        face = TrackedFace(index, None if index in without else matrix(), 0.0 if index in without else 1.0, None)
        if index in without:
            face = TrackedFace(index, None, 0.0, "no face")
        yield AlignedFrame(index, pixels, face)


def run(
    count: int, mode: WindowMode, without: frozenset[int] = frozenset(), window_batch_size: int = 1
) -> tuple[list[OutputFrame], BrightnessGenerator]:
    generator = BrightnessGenerator(window_batch_size)
    compositor = Compositor(generator, FaceRestorer(RESOLUTION), CPU, StageClock(CPU))
    plan = list(plan_windows(count, 16, mode))

    def audio(window: Window) -> Tensor:
        return torch.zeros(len(window.indices), 50, 4)

    return list(compositor.run(frames(count, without), plan, audio)), generator


def mouth_level(frame: OutputFrame) -> float:
    """What the generator painted, read back from the middle of the pasted mouth."""
    width, height = crop_size(RESOLUTION)
    row, column = 10 + int(height * 0.7), 20 + width // 2
    return float(frame.pixels[row, column].mean()) / 127.5 * 10 - 10


@pytest.mark.parametrize("mode", ["blend", "tail", "published"])
@pytest.mark.parametrize("count", [1, 5, 16, 17, 37])
def test_every_frame_leaves_in_order_with_a_new_mouth(mode: WindowMode, count: int) -> None:
    finished, _ = run(count, mode)
    assert [frame.index for frame in finished] == list(range(count))
    assert all(frame.generated for frame in finished)
    for frame in finished:
        assert (frame.source == frame.index % 200).all()
        assert (frame.pixels[:5] == frame.source[:5]).all()


def test_blending_rises_from_one_window_to_the_next() -> None:
    finished, generator = run(28, "blend")
    levels = [mouth_level(frame) for frame in finished]
    assert generator.calls == [16, 16]
    assert levels[:12] == pytest.approx([1] * 12, abs=0.06)
    assert levels[12:16] == pytest.approx([1.2, 1.4, 1.6, 1.8], abs=0.06)
    assert levels[16:] == pytest.approx([2] * 12, abs=0.06)


def test_reaching_back_does_not_touch_finished_frames() -> None:
    levels = [mouth_level(frame) for frame in run(20, "tail")[0]]
    assert levels == pytest.approx([1] * 16 + [2] * 4, abs=0.06)


def test_frames_without_a_face_pass_untouched_and_say_why() -> None:
    finished, generator = run(48, "tail", frozenset(range(10, 36)))
    for frame in finished:
        assert frame.generated == (not 10 <= frame.index < 36)
        assert frame.reason == (None if frame.generated else "no face")
        if not frame.generated:
            assert frame.pixels is frame.source
    assert generator.calls == [16, 16]  # the window in the middle has no face at all and costs nothing


@pytest.mark.parametrize("window_batch_size", [2, 3, 9])
@pytest.mark.parametrize("mode", ["blend", "tail", "published"])
def test_several_windows_at_once_make_the_same_video(mode: WindowMode, window_batch_size: int) -> None:
    without = frozenset([*range(20, 23), *range(40, 61)])
    one_by_one, generator = run(90, mode, without)
    together, other = run(90, mode, without, window_batch_size)
    assert other.calls == generator.calls
    assert [(frame.index, frame.reason) for frame in together] == [(frame.index, frame.reason) for frame in one_by_one]
    for frame, same in zip(together, one_by_one):
        assert np.array_equal(frame.pixels, same.pixels)


def test_the_source_stays_as_it_came_however_often_it_is_shown() -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    before = image.copy()
    image.flags.writeable = False
    face_keys = (AlignedFrame(index, image, TrackedFace(index, matrix(), 1.0, None)) for index in range(20))
    compositor = Compositor(BrightnessGenerator(), FaceRestorer(RESOLUTION), CPU, StageClock(CPU))
    plan = list(plan_windows(20, 16, "blend"))
    finished = list(compositor.run(face_keys, plan, lambda window: torch.zeros(len(window.indices), 50, 4)))
    for frame in finished:
        pixels = frame.pixels
        assert frame.source is image and not np.shares_memory(pixels, image)
        assert (pixels != image).any()
        pixels[...] = 0
        assert (frame.pixels != 0).any()
    assert np.array_equal(image, before)


def test_no_face_at_all_never_calls_the_generator() -> None:
    finished, generator = run(40, "blend", frozenset(range(40)))
    assert generator.calls == []
    assert not any(frame.generated for frame in finished)


def test_windows_of_silence_cost_nothing_and_fade_at_both_ends() -> None:
    weights = np.ones(64, np.float32)
    weights[10:56] = 0
    weights[8:10] = weights[57:55:-1] = 2 / 3, 1 / 3
    generator = BrightnessGenerator()
    compositor = Compositor(generator, FaceRestorer(RESOLUTION), CPU, StageClock(CPU))
    stream = keep_silent_frames(frames(64, frozenset({20})), weights)
    plan = list(plan_windows(64, 16, "tail"))
    finished = list(compositor.run(stream, plan, lambda window: torch.zeros(len(window.indices), 50, 4)))
    assert generator.calls == [16, 16]  # the two windows in the middle are all silent
    assert [frame.generated for frame in finished] == (weights > 0).tolist()
    reasons = {frame.reason for frame in finished if not frame.generated and frame.index != 20}
    assert reasons == {"silence"} and finished[20].reason == "no face"
    assert all(frame.reason is None for frame in finished if frame.generated)
    new = [abs(float(frame.pixels.mean()) - float(frame.source.mean())) for frame in finished]
    assert new[7] > new[8] > new[9] > new[10] == 0
    assert new[55] == 0 < new[56] < new[57] < new[58]


def test_equal_names_stand_for_equal_faces_also_where_gaps_are_filled() -> None:
    _, generator = run(37, "blend", without=frozenset({13, 14, 15, 16, 36}))
    known: dict[Hashable, Tensor] = {}
    for name, face in generator.face_keys:
        assert torch.equal(known.setdefault(name, face), face)
    assert len(generator.face_keys) == 16 * len(generator.calls)
    assert set(known) == set(range(37)) - {13, 14, 15, 16, 36}
