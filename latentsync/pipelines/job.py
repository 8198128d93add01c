"""What is asked of the pipeline for one video, and what it answers."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from latentsync.diffusion.denoise import SamplerOptions
from latentsync.errors import ConfigError, MediaError
from latentsync.face.tracking.selection import parse_choice
from latentsync.media.output_file import check_output, partial_path
from latentsync.media.timeline import LoopMode, parse_rate
from latentsync.pipelines.windows import WindowMode


@dataclass(frozen=True)
class LipsyncJob:
    """One video to make.

    Attributes:
        video_path: the talking head.
        audio_path: the speech; any file with sound, a video too.
        video_out_path: the result; a JSON report is written beside it.
        sampler: steps, guidance, feature cache.
        seed: of the noise; equal seeds give equal videos, -1 draws a fresh one.
        face: which face to follow: largest, leftmost, rightmost, center, or an index from the left (0, 1, ...).
        windows: how frames are grouped, see `latentsync.pipelines.windows.plan_windows`.
        output_fps: "source" (halved and so on until at most 30) or a number.
        loop: what follows when the speech outlasts the video.
        preview_seconds: make only the beginning; None makes everything.
        keep_silent_frames: leave the source's mouth where the speech is silent for half a second or longer.
        side_by_side: put the source picture to the left of the result.
        overwrite: replace files that exist.
        crf: x264 quality, lower is better and larger.
    """

    video_path: Path
    audio_path: Path
    video_out_path: Path
    sampler: SamplerOptions = SamplerOptions()
    seed: int = 1247
    face: str = "largest"
    windows: WindowMode = "blend"
    output_fps: str = "source"
    loop: LoopMode = "pingpong"
    preview_seconds: float | None = None
    keep_silent_frames: bool = False
    side_by_side: bool = False
    overwrite: bool = False
    crf: int = 14

    def __post_init__(self) -> None:
        for what, given, known in (("Windows", self.windows, WindowMode), ("Loop", self.loop, LoopMode)):
            if given not in get_args(known):
                raise ConfigError(f"{what}: got {given!r}, expected one of {', '.join(get_args(known))}")
        if self.preview_seconds is not None and not 0 < self.preview_seconds < math.inf:
            raise ConfigError(f"Preview: got {self.preview_seconds} seconds, expected a number above 0")
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"Quality (crf): got {self.crf}, expected 0 (lossless) to 51 (worst)")
        if not -1 <= self.seed < 2**63:
            raise ConfigError(f"Seed: got {self.seed}, expected -1 (fresh) or a number from 0 to 2^63 - 1")
        parse_choice(self.face)
        if self.output_fps != "source":
            parse_rate(self.output_fps)
        if self.sampler.published != (self.windows == "published"):
            raise ConfigError(
                f"Windows {self.windows!r} with SamplerOptions(published={self.sampler.published}): "
                "a video is made the published way in both or in neither; set them alike"
            )

    @property
    def report_path(self) -> Path:
        """The JSON report beside the video."""
        return self.video_out_path.with_suffix(".json")

    def resolve_seed(self) -> int:
        """The seed to use: the given one, or a fresh one for -1."""
        return self.seed if self.seed >= 0 else secrets.randbelow(2**31)

    def check_paths(self) -> None:
        """Refuse early what would only fail after minutes of work.

        Raises:
            MediaError: an input is missing, an output would replace an input or an existing file unasked, or the
                output cannot be written where it should be.
        """
        inputs = (self.video_path, self.audio_path)
        for what, path in zip(("Video", "Audio"), inputs):
            if not path.is_file():
                raise MediaError(f"{what} file {path} does not exist or is no file; give the path of one that does")
        check_output(self.video_out_path, inputs, self.overwrite)
        report = self.report_path
        if report.is_dir():
            raise MediaError(f"Report {report} cannot be written: a folder has that name; choose another output name")
        if report.exists() and any(report.samefile(path) for path in inputs):
            raise MediaError(f"Report {report} would replace an input; choose another output name")
        if os.path.lexists(report) and not self.overwrite:
            raise MediaError(f"Report {report} exists already; choose another output name or allow --overwrite")


@dataclass(frozen=True)
class FrameSpan:
    """Output frames first..last (both included) that share one reason."""

    first: int
    last: int
    reason: str


class FrameLog:
    """Collects, frame by frame, what was done and why; kept as spans so that it stays small."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.spans: list[FrameSpan] = []

    def add(self, index: int, generated: bool, reason: str | None) -> None:
        """Note output frame ``index`` (in order): whether its mouth was made anew, and the reason for anything odd."""
        self.counts["generated" if generated else "original"] += 1
        if reason is None:
            return
        last = self.spans[-1] if self.spans else None
        if last is not None and last.reason == reason and last.last == index - 1:
            self.spans[-1] = FrameSpan(last.first, index, reason)
        else:
            self.spans.append(FrameSpan(index, index, reason))


@dataclass(frozen=True)
class LipsyncResult:
    """What was made.

    Attributes:
        video_out_path: the finished video.
        num_frames: frames written: round(audio seconds x fps).
        fps: frame rate as a fraction.
        width: of the written picture in pixels.
        height: of the written picture in pixels.
        generated_frames: frames with a new mouth.
        original_frames: frames left as they were.
        spans: which frames were special, and why.
        warnings: what was odd about the input.
        stage_seconds: busy seconds per stage; stages overlap, so they add up to more than the total.
        total_seconds: wall-clock time.
        first_frame_seconds: from the start of the job until its first frame was handed to the writer.
        settings: everything needed to repeat the run.
    """

    video_out_path: Path
    num_frames: int
    fps: Fraction
    width: int
    height: int
    generated_frames: int
    original_frames: int
    spans: list[FrameSpan]
    warnings: list[str]
    stage_seconds: dict[str, float]
    total_seconds: float
    first_frame_seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        """Output frames made per second of wall-clock time."""
        return self.num_frames / self.total_seconds if self.total_seconds else 0.0

    def to_json(self) -> str:
        """The report as JSON text."""
        content = dataclasses.asdict(self)
        content["video_out_path"] = str(self.video_out_path)
        content["fps"] = str(self.fps)
        content["frames_per_second"] = round(self.frames_per_second, 3)
        return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"

    def write(self, path: Path) -> None:
        """Write the report under its final name in one step.

        Raises:
            MediaError: the folder cannot be written to.
        """
        partial = partial_path(path)
        try:
            # Names that are no UTF-8 hold lone surrogates; with backslashes they are JSON escapes.
            partial.write_text(self.to_json(), encoding="utf-8", errors="backslashreplace")
            os.replace(partial, path)
        except OSError as error:
            raise MediaError(
                f"{self.video_out_path} is whole, but its report {path} cannot be written ({error.strerror}). "
                "Free disk space to get reports too"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
