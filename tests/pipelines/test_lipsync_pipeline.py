"""Whole videos through real decoding, detection, pasting and encoding; only the networks are small or passed over."""

from __future__ import annotations

import json
import threading
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from latentsync.errors import Cancelled, FaceNotFoundError, LatentSyncError, MediaError
from latentsync.face.compositing.masks import load_mask
from latentsync.face.detection.mediapipe_detector import MediapipeDetector
from latentsync.media.audio.reader import read_audio
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import VideoWriter
from latentsync.pipelines.generator import PassThroughGenerator
from latentsync.pipelines.job import LipsyncJob, LipsyncResult
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine
from latentsync.runtime.resources import REPOSITORY
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims
from tests.golden_files import load_golden

VIDEO = REPOSITORY / "assets" / "demo_video.mp4"
SPEECH = REPOSITORY / "assets" / "demo_speech.wav"
RESOLUTION = 128


@pytest.fixture(scope="module")
def pipeline() -> LipsyncEngine:
    torch.manual_seed(0)
    micro = load_golden("whisper_micro_weights")
    encoder = AudioEncoder(AudioEncoderDims.from_mapping(micro.attrs)).eval()
    generator = PassThroughGenerator(RESOLUTION)
    return LipsyncEngine(generator, encoder, MediapipeDetector, load_mask("mask", RESOLUTION), torch.device("cpu"))


@pytest.fixture
def faceless(tmp_path: Path) -> Path:
    """Half a second of plain grey."""
    path = tmp_path / "grey.mp4"
    with VideoWriter(path, 320, 240, Fraction(25)) as writer:
        for _ in range(12):
            writer.write(np.full((240, 320, 3), 128, np.uint8))
    return path


def job(out: Path, **options: Any) -> LipsyncJob:
    return LipsyncJob(VIDEO, SPEECH, out, **{"preview": 0.8, **options})


def read_frames(path: Path) -> Iterator[np.ndarray]:
    return (frame.pixels for frame in VideoReader(path))


def sound_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return float(stream.duration * stream.time_base)


def test_video_and_report_hold_what_was_asked(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    out = tmp_path / "with blank, 'quote' & $(ünïcode).mp4"
    seen: list[tuple[int, int]] = []
    result = pipeline(job(out), lambda done, total: seen.append((done, total)))
    frames = list(read_frames(out))
    assert len(frames) == result.num_frames == result.generated_frames == 20
    assert seen == [(count, 20) for count in range(21)]
    assert sound_seconds(out) == pytest.approx(0.8, abs=0.001)
    report = json.loads(out.with_suffix(".json").read_text())
    assert 0 < report["first_frame_seconds"] < report["total_seconds"]
    assert report["settings"]["seed"] == 1247 and report["spans"] == []
    assert report["settings"]["inference_steps"] == 20 and report["settings"]["guidance_scale"] == 1.5
    assert {"read", "detect", "align", "restore", "write"} <= report["stage_seconds"].keys()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".mp4"]


def test_picture_outside_the_face_is_the_sources(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    pipeline(job(tmp_path / "out.mp4"))
    for source, made in zip(read_frames(VIDEO), read_frames(tmp_path / "out.mp4")):
        outside = np.abs(source[450:].astype(float) - made[450:])
        assert 10 * np.log10(255**2 / np.mean(outside**2)) >= 40


def test_side_by_side_shows_the_source_on_the_left(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    result = pipeline(job(tmp_path / "out.mp4", side_by_side=True, preview=0.12))
    frame = next(read_frames(tmp_path / "out.mp4"))
    source = next(read_frames(VIDEO))
    assert (result.width, result.height) == (2 * source.shape[1], source.shape[0])
    assert np.abs(frame[:, : source.shape[1]].astype(int) - source).mean() < 3


def test_other_frame_rates_keep_the_length(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    result = pipeline(job(tmp_path / "out.mp4", output_fps="30000/1001"))
    assert result.fps == Fraction(30000, 1001)
    assert len(list(read_frames(tmp_path / "out.mp4"))) == result.num_frames == 24


def test_speech_longer_than_the_video_plays_it_to_and_fro(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    frames = [frame for frame, _ in zip(read_frames(VIDEO), range(5))]
    with VideoWriter(short, 768, 768, Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame)
    pipeline(LipsyncJob(short, SPEECH, tmp_path / "out.mp4", preview=0.6))
    made = list(read_frames(tmp_path / "out.mp4"))
    assert len(made) == 15
    for index, shown in enumerate([0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2]):
        distances = [np.abs(made[index].astype(int) - frame).mean() for frame in frames]
        assert distances[shown] <= min(distances) + 0.2
    with pytest.raises(MediaError, match="lasts"):
        pipeline(LipsyncJob(short, SPEECH, tmp_path / "refused.mp4", loop="error"))
    assert not (tmp_path / "refused.mp4").exists()


def test_no_face_anywhere_is_an_error_that_leaves_nothing(
    pipeline: LipsyncEngine, faceless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(PassThroughGenerator, "sample_windows", lambda *_: calls.append(1))
    before = {path.name for path in tmp_path.iterdir()}
    threads = threading.active_count()
    with pytest.raises(FaceNotFoundError, match="No usable face in any of the 10 frames"):
        pipeline(LipsyncJob(faceless, SPEECH, tmp_path / "out.mp4", preview=0.4))
    assert calls == []
    assert {path.name for path in tmp_path.iterdir()} == before
    assert threading.active_count() == threads


def test_interruption_leaves_neither_files_nor_threads(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        pipeline(job(tmp_path / "out.mp4"), interrupt)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


def test_the_report_repeats_the_run(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    made = pipeline(job(tmp_path / "out.mp4", speed="fast", seed=-1, preview=0.12))
    names = [field.name for field in fields(LipsyncJob)]
    again = LipsyncJob.from_dict({name: json.loads(made.to_json())["settings"][name] for name in names})
    assert (again.inference_steps, again.cache_interval, again.solver) == (15, 3, "dpm++")
    assert pipeline(replace(again, overwrite=True)).settings == {**made.settings, "overwrite": True}


def test_cancelling_leaves_neither_files_nor_threads(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    cancel, seen = threading.Event(), []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == 1:
            cancel.set()

    threads = threading.active_count()
    with pytest.raises(Cancelled, match="out.mp4: cancelled"):
        pipeline(job(tmp_path / "out.mp4"), progress, cancel)
    assert seen == [0, 1]
    with pytest.raises(Cancelled):
        pipeline(job(tmp_path / "out.mp4"), progress, cancel)
    assert seen == [0, 1] and list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads
    assert pipeline(job(tmp_path / "out.mp4", preview=0.12), None, threading.Event()).num_frames == 3


def test_jobs_of_several_threads_run_one_after_the_other(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    order: list[str] = []
    first_runs, cancel = threading.Event(), threading.Event()

    def progress_of(name: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            order.append(name)
            if done == 0 and name == "one":
                first_runs.set()
                # The third job gives up while it waits for this one.
                cancel.set()
                assert isinstance(waiting.exception(), Cancelled)

        return progress

    def run(name: str, event: threading.Event | None = None) -> LipsyncResult:
        return pipeline(job(tmp_path / f"{name}.mp4", preview=0.12), progress_of(name), event)

    def run_third() -> LipsyncResult:
        first_runs.wait()
        return run("three", cancel)

    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(run_third)
        one = pool.submit(run, "one")
        first_runs.wait()
        two = pool.submit(run, "two")
        assert one.result().num_frames == two.result().num_frames == 3
    assert order == ["one"] * 4 + ["two"] * 4
    assert not (tmp_path / "three.mp4").exists()


def test_a_closed_engine_refuses_jobs_and_frees_its_resources(tmp_path: Path, pipeline: LipsyncEngine) -> None:
    freed: list[str] = []
    engine = replace(pipeline, resources=ExitStack())
    engine.resources.callback(freed.append, "threads")
    engine.close()
    engine.close()
    assert freed == ["threads"]
    with pytest.raises(LatentSyncError, match="the pipeline is closed"):
        engine(job(tmp_path / "out.mp4"))


def test_two_runs_in_one_folder_do_not_touch_each_other(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    pipeline(job(tmp_path / "one.mp4", preview=0.12))
    before = (tmp_path / "one.mp4").read_bytes()
    pipeline(job(tmp_path / "two.mp4", preview=0.12))
    assert (tmp_path / "one.mp4").read_bytes() == before
    with pytest.raises(MediaError, match="exists already"):
        pipeline(job(tmp_path / "one.mp4"))


def write_speech(path: Path, *pieces: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((np.concatenate(pieces) * 32767).astype("<i2").tobytes())
    return path


def test_long_silences_keep_the_source_if_asked(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    words, silence = read_audio(SPEECH)[8000:16000], np.zeros(16000, np.float32)
    speech = write_speech(tmp_path / "speech.wav", words, silence, words)
    result = pipeline(LipsyncJob(VIDEO, speech, tmp_path / "out.mp4", keep_silent_frames=True))
    (span,) = result.spans
    assert span.reason == "silence" and 12 <= span.first <= 22 and 29 <= span.last <= 38
    assert result.original_frames == span.last - span.first + 1
    assert result.settings["keep_silent_frames"]


def test_a_preview_of_silence_alone_is_the_source(pipeline: LipsyncEngine, tmp_path: Path) -> None:
    words, silence = read_audio(SPEECH)[8000:16000], np.zeros(16000, np.float32)
    speech = write_speech(tmp_path / "speech.wav", silence, words)
    result = pipeline(LipsyncJob(VIDEO, speech, tmp_path / "out.mp4", keep_silent_frames=True, preview=0.4))
    assert (result.generated_frames, result.original_frames) == (0, 10)
