"""End-to-end pipeline for one video: decode, track, encode audio, generate, composite, encode."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from latentsync.errors import Cancelled, FaceNotFoundError, LatentSyncError
from latentsync.face.compositing.restore import Blend, FaceRestorer
from latentsync.face.detection.detector import FaceDetector
from latentsync.face.tracking.tracker import FaceTracker
from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.audio.reader import SpeechAudio, load_speech
from latentsync.media.audio.silence import SpeechWeights, speech_weights
from latentsync.media.probe import VideoInfo, probe_video
from latentsync.media.timeline import LoopMode, TimelineReader, output_fps, output_frame_count
from latentsync.media.video_writer import VideoWriter, WriterOptions
from latentsync.pipelines.align import SearchedItem, SourceItem, align_frames, search_frames
from latentsync.pipelines.compositor import Compositor
from latentsync.pipelines.generator import FaceGenerator
from latentsync.pipelines.job import FrameLog, LipsyncJob, LipsyncResult, ModelDefaults, ProgressCallback
from latentsync.pipelines.output_frame import OutputFrame
from latentsync.pipelines.silent_frames import SILENCE, keep_silent_frames
from latentsync.pipelines.stages import Prefetch, Sink
from latentsync.pipelines.windows import Window, plan_windows
from latentsync.profiling import StageClock
from latentsync.runtime.transfer import to_device
from latentsync.whisper.audio_encoder import AudioEncoder
from latentsync.whisper.audio_windows import AudioWindows

SAMPLE_RATE = 16000
_QUEUE_DEPTH = 4
_POLL_SECONDS = 0.1


@dataclass
class LipsyncEngine:
    """Loaded networks and what runs them; built once, used for many videos, one at a time.

    Several threads may call one engine: jobs then run one after the other.

    Attributes:
        generator: generates the faces.
        audio_encoder: encodes the speech.
        make_detector: called once per video, since detectors track faces from frame to frame.
        mask: (3, R, R) float, 1 = keep: the mask by which the generator repaints.
        device: where generation and compositing run.
        window_length: frames of a window.
        audio_feat_length: video frames of audio context before and after a frame.
        defaults: what the model is sampled with where a job leaves it open.
        settings: added to each report: how the engine was built.
        resources: closed with the engine.
    """

    generator: FaceGenerator
    audio_encoder: AudioEncoder
    make_detector: Callable[[], FaceDetector]
    mask: Tensor
    device: torch.device
    window_length: int = 16
    audio_feat_length: tuple[int, int] = (2, 2)
    defaults: ModelDefaults = ModelDefaults()
    settings: dict[str, Any] = field(default_factory=dict)
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False

    def __call__(
        self, job: LipsyncJob, progress: ProgressCallback | None = None, cancel: threading.Event | None = None
    ) -> LipsyncResult:
        """Make one video.

        Args:
            job: what to make.
            progress: see `ProgressCallback`. It must not call the engine; an exception that it raises ends the job.
            cancel: set it, from any thread, to end the job within about one window.

        Returns:
            What was made; the same is written as JSON beside the video.

        Raises:
            MediaError: an input cannot be read or the output cannot be written.
            FaceNotFoundError: no frame has a usable face.
            Cancelled: ``cancel`` was set; neither video nor report is left behind.
            LatentSyncError: the engine is closed.
        """
        with self._exclusive(job, cancel):
            if self._closed:
                raise LatentSyncError(f"{job.video_out_path}: the pipeline is closed; load another one")
            # Streams and graphs belong to the current device, which every thread starts with anew.
            scope = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
            with scope:
                return _Run(self, job, progress or (lambda done, total: None), cancel).execute()

    def close(self) -> None:
        """Wait for a running job and end what runs in the background. The engine cannot be used afterwards."""
        with self._lock:
            self._closed = True
            self.resources.close()

    @contextmanager
    def _exclusive(self, job: LipsyncJob, cancel: threading.Event | None) -> Iterator[None]:
        """Wait for the jobs of other threads, unless cancelled meanwhile."""
        while not self._lock.acquire(timeout=-1 if cancel is None else _POLL_SECONDS):
            _raise_if_cancelled(job, cancel)
        try:
            yield
        finally:
            self._lock.release()


class _Run:
    """One job on its way through the engine."""

    def __init__(
        self, engine: LipsyncEngine, job: LipsyncJob, progress: ProgressCallback, cancel: threading.Event | None
    ) -> None:
        self._engine, self._progress, self._cancel = engine, progress, cancel
        self._job = job.resolved(engine.defaults)
        self._clock = StageClock(engine.device)
        self._log = FrameLog()
        self._warnings: list[str] = []
        self._started = time.perf_counter()
        self._first_frame_seconds: float | None = None
        self._weights: SpeechWeights | None = None

    def execute(self) -> LipsyncResult:
        """Make the video and its report."""
        job = self._job
        _raise_if_cancelled(job, self._cancel)
        job.check_paths()
        info = probe_video(job.video_path)
        fps = output_fps(info, job.output_fps)
        speech, num_frames = self._load_speech(fps)
        source = TimelineReader(job.video_path, fps, num_frames, cast(LoopMode, job.loop))
        sampler = job.sampler_options(self._engine.defaults)
        assert job.seed is not None  # the job is resolved
        self._engine.generator.start(job.seed, sampler, self._clock)
        if job.keep_silent_frames:
            self._weights = speech_weights(speech.waveform, speech.sample_rate, fps, num_frames)
            if self._weights.all():
                self._warnings.append("No long silence was found in the speech: every mouth is generated")
        width, height = self._generate(info, fps, source, self._audio_windows(speech, fps, num_frames))
        self._warnings.extend(source.warnings)
        result = LipsyncResult(
            video_out_path=job.video_out_path,
            num_frames=num_frames,
            fps=fps,
            width=width,
            height=height,
            generated_frames=self._log.counts["generated"],
            original_frames=self._log.counts["original"],
            spans=self._log.spans,
            warnings=self._warnings,
            stage_seconds=self._clock.seconds(),
            total_seconds=round(time.perf_counter() - self._started, 3),
            first_frame_seconds=round(self._first_frame_seconds or 0.0, 3),
            settings={**self._engine.settings, **job.to_dict(), "sampler": dataclasses.asdict(sampler)},
        )
        result.write(job.report_path)
        return result

    def _load_speech(self, fps: Fraction) -> tuple[SpeechAudio, int]:
        """The speech, and how many frames it drives."""
        with self._clock.host("read_audio"):
            speech = load_speech(self._job.audio_path, SAMPLE_RATE)
        self._warnings.extend(speech.warnings)
        seconds = speech.seconds
        if self._job.preview is not None:
            seconds = min(seconds, Fraction(self._job.preview))
        return speech, output_frame_count(seconds, fps)

    def _audio_windows(self, speech: SpeechAudio, fps: Fraction, num_frames: int) -> AudioWindows:
        return AudioWindows(
            self._engine.audio_encoder,
            torch.from_numpy(speech.waveform),
            fps,
            num_frames,
            continuity="published" if self._job.windows == "published" else "continuous",
            feat_length=self._engine.audio_feat_length,
        )

    def _generate(self, info: VideoInfo, fps: Fraction, source: TimelineReader, audio: AudioWindows) -> tuple[int, int]:
        """Run all stages concurrently until the last frame is written; on an error nothing is left behind.

        Returns:
            Width and height of the written frames.
        """
        engine, job, clock = self._engine, self._job, self._clock
        blend: Blend = "published" if job.windows == "published" else "mask"
        restorer = FaceRestorer(engine.generator.resolution, blend, engine.mask)
        compositor = Compositor(engine.generator, restorer, engine.device, clock)
        tracker = FaceTracker(job.face, (info.width, info.height), float(fps), engine.generator.resolution)
        plan = list(plan_windows(len(audio), engine.window_length, job.windows))
        with ExitStack() as stack:
            writer = stack.enter_context(self._writer(info, fps))
            detector = stack.enter_context(closing(engine.make_detector()))
            frames = stack.enter_context(Prefetch(self._timed(source), _QUEUE_DEPTH, "decode"))
            # A GPU idles unless the next batch of windows can be aligned, and the last one encoded, while it computes.
            # The CPU would gain nothing: there all stages share the cores.
            batch_frames = engine.window_length * engine.generator.window_batch_size
            depth = _QUEUE_DEPTH if engine.device.type == "cpu" else batch_frames
            searched: Iterable[SearchedItem] = search_frames(frames, detector, clock)
            if engine.device.type != "cpu":
                searched = stack.enter_context(Prefetch(searched, _QUEUE_DEPTH, "search"))
            faces = align_frames(searched, detector, tracker, clock)
            if self._weights is not None:
                faces = keep_silent_frames(faces, self._weights)
            aligned = stack.enter_context(Prefetch(faces, depth, "detect"))
            sink = stack.enter_context(Sink(partial(self._write, writer), depth, "encode"))
            self._progress(0, len(audio))
            for frame in compositor.run(aligned, plan, partial(window_audio, audio)):
                _raise_if_cancelled(job, self._cancel)
                self._log.add(frame.index, frame.generated, frame.reason)
                sink.put(frame)
                self._progress(frame.index + 1, len(audio))
            if not self._log.counts["generated"] and SILENCE not in {span.reason for span in self._log.spans}:
                raise FaceNotFoundError(self._no_face_message(len(audio)))
        return writer.encoded_size

    def _writer(self, info: VideoInfo, fps: Fraction) -> VideoWriter:
        job = self._job
        options = WriterOptions(
            crf=job.crf,
            color=info.color,
            sample_aspect_ratio=info.sample_aspect_ratio,
            inputs=(job.video_path,),
            overwrite=job.overwrite,
        )
        width = info.width * (2 if job.side_by_side else 1)
        audio_track = AudioTrack(job.audio_path, warnings=self._warnings)  # warnings of the speech are not repeated
        return VideoWriter(job.video_out_path, width, info.height, fps, audio_track, options)

    def _write(self, writer: VideoWriter, frame: OutputFrame) -> None:
        pixels = frame.pixels  # waits for the device, which does not count as writing
        if self._first_frame_seconds is None:
            self._first_frame_seconds = time.perf_counter() - self._started
        with self._clock.host("write"):
            writer.write(np.concatenate([frame.source, pixels], axis=1) if self._job.side_by_side else pixels)

    def _timed(self, source: TimelineReader) -> Iterator[SourceItem]:
        frames = iter(source)
        while True:
            _raise_if_cancelled(self._job, self._cancel)
            with self._clock.host("read"):
                item = next(frames, None)
            if item is None:
                return
            yield item

    def _no_face_message(self, num_frames: int) -> str:
        reasons = ", ".join(sorted({span.reason for span in self._log.spans})) or "no face"
        return (
            f"No usable face in any of the {num_frames} frames of {self._job.video_path} with --face {self._job.face} "
            f"({reasons}); a face must be turned to the camera and at least 40 pixels wide. Use another video, or "
            "choose another person with --face"
        )


def _raise_if_cancelled(job: LipsyncJob, cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"{job.video_out_path}: cancelled; nothing unfinished was left behind")


def window_audio(audio: AudioWindows, window: Window) -> Tensor:
    """(f, 50, d) audio windows of every slot of a window; slots may repeat frames."""
    audio_windows = audio[window.start : window.stop]
    return audio_windows[to_device(torch.tensor(window.indices) - window.start, audio_windows.device)]
