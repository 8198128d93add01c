"""The request for one video, `LipsyncJob`, and the report of what was made, `LipsyncResult`."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from latentsync.diffusion.solvers import SOLVERS
from latentsync.diffusion.speed import PUBLISHED_CACHE_INTERVAL, SPEEDS, SamplerRequest
from latentsync.errors import ConfigError, MediaError
from latentsync.media.output_file import check_output, partial_path
from latentsync.pipelines.request import (
    REQUIRED,
    ChoiceValue,
    FaceValue,
    FlagValue,
    IntegerValue,
    IntervalValue,
    NumberValue,
    PathValue,
    RateValue,
    default_of,
    given_values,
    job_option,
    option_of,
    plain_value,
)
from latentsync.pipelines.windows import WindowMode

if TYPE_CHECKING:
    from latentsync.diffusion.denoise import SamplerOptions

ProgressCallback = Callable[[int, int], None]
"""(frames done, frames in all): called in the thread that runs the job, first with 0, then after every frame."""

# The same as in the modules that own them, whose libraries take long to import (a test compares them).
LOOPS = ("pingpong", "hold", "error")
FACES = ("largest", "leftmost", "rightmost", "center")
_DAY = 86400


@dataclass(frozen=True)
class ModelDefaults:
    """What a model is sampled with where a job leaves it to the model.

    Attributes:
        inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 is none.
        seed: of the noise; -1 draws a fresh one.
    """

    inference_steps: int = 20
    guidance_scale: float = 1.5
    seed: int = 1247


@dataclass(frozen=True)
class LipsyncJob:
    """One video to make: what the command line, a tasks file, Python and the servers all turn their input into.

    Fields are named as the options of the command line are; their metadata is the one table of what each may hold.
    Values are converted and checked at construction; None takes the field's default. Where the default itself is None,
    the value follows from ``speed`` and the model, see `resolved`.

    Raises:
        ConfigError: a value is not of its kind or out of range; the message names field, value and expectation.
    """

    video_path: Path = field(metadata=job_option(PathValue(), "the talking head"))
    audio_path: Path = field(metadata=job_option(PathValue(), "the speech: any file with sound, also a video"))
    video_out_path: Path = field(
        metadata=job_option(PathValue(), "the result (.mp4, .mov, .mkv); a .json report is written beside it")
    )
    speed: str = field(
        default="exact",
        metadata=job_option(ChoiceValue(tuple(SPEEDS)), "sets the sampler options below that are not given"),
    )
    inference_steps: int | None = field(
        default=None,
        metadata=job_option(IntegerValue(1, 1000), "denoising steps; default: the model's own, fewer at higher speed"),
    )
    guidance_scale: float | None = field(
        default=None,
        metadata=job_option(
            NumberValue(0, 20), "1.0 to 3.0 is usual: higher follows the speech harder; default: the model's own"
        ),
    )
    seed: int | None = field(
        default=None,
        metadata=job_option(
            IntegerValue(-1, 2**63 - 1),
            "equal seeds give equal videos; -1 draws a fresh one; default: the model's own",
        ),
    )
    enable_deepcache: bool = field(
        default=False,
        metadata=job_option(FlagValue(), f"the same as a cache_interval of {PUBLISHED_CACHE_INTERVAL}: faster, softer"),
    )
    cache_interval: int | None = field(
        default=None,
        metadata=job_option(
            IntegerValue(1, 1000), "compute deep features in every N-th step only; 1 = in all; default: by speed"
        ),
    )
    solver: str | None = field(
        default=None,
        metadata=job_option(
            ChoiceValue(SOLVERS.keys()), "ddim is as published, dpm++ and unipc need fewer steps; default: by speed"
        ),
    )
    guidance_interval: tuple[float, float] | None = field(
        default=None,
        metadata=job_option(
            IntervalValue(), "guide only between these fractions of the steps, 0 (noisiest) to 1; default: by speed"
        ),
    )
    face: str = field(
        default="largest",
        metadata=job_option(FaceValue(FACES), f"{', '.join(FACES)}, or 0, 1, ... counted from the left"),
    )
    windows: WindowMode = field(
        default="blend",
        metadata=job_option(
            ChoiceValue(get_args(WindowMode)),
            "how frames are grouped: blend, tail, or published (grouping and compositing of the public system)",
        ),
    )
    output_fps: str = field(
        default="source",
        metadata=job_option(RateValue(), "source (50 and 60 are halved) or a number such as 25"),
    )
    loop: str = field(
        default="pingpong",
        metadata=job_option(ChoiceValue(LOOPS), "if the speech is longer: pingpong, hold, or error"),
    )
    keep_silent_frames: bool = field(
        default=False, metadata=job_option(FlagValue(), "leave the source's mouth in silences of 0.5 s and longer")
    )
    preview: float | None = field(
        default=None,
        metadata=job_option(NumberValue(0, _DAY, above=True, unit="seconds"), "make only so much of the beginning"),
    )
    side_by_side: bool = field(
        default=False, metadata=job_option(FlagValue(), "show the source to the left of the result")
    )
    crf: int = field(
        default=14, metadata=job_option(IntegerValue(0, 51), "x264 quality, 0 (lossless) to 51; lower is larger")
    )
    overwrite: bool = field(default=False, metadata=job_option(FlagValue(), "replace results that exist"))

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            value = default_of(each) if value is None else value
            if value is not None:
                # Frozen for everybody else.
                object.__setattr__(self, each.name, option_of(each).checked(each.name, value))
        if self.enable_deepcache and self.cache_interval not in (None, PUBLISHED_CACHE_INTERVAL):
            raise ConfigError(
                f"cache_interval: got {self.cache_interval} beside enable_deepcache, expected "
                f"{PUBLISHED_CACHE_INTERVAL} or none; leave out one of the two"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> LipsyncJob:
        """A job from plain values, as JSON or YAML gives them; also from the command line's.

        Args:
            values: by field name. None is the same as leaving the field out.
            defaults: taken for fields that ``values`` does not set.

        Raises:
            ConfigError: an unknown or missing field, or a value that cannot be used.
        """
        options = {each.name: option_of(each) for each in dataclasses.fields(cls)}
        given = {**given_values(options, defaults or {}), **given_values(options, values)}
        missing = [key for key in cls.required() if key not in given]
        if missing:
            raise ConfigError(f"Job: got no {', '.join(missing)}; expected the path of a file for each")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON can hold it; `from_dict` makes an equal job of it."""
        return {each.name: plain_value(getattr(self, each.name)) for each in dataclasses.fields(self)}

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """Names of the fields that must be given."""
        return tuple(each.name for each in dataclasses.fields(cls) if default_of(each) is REQUIRED)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema (2020-12) of what `from_dict` accepts.

        Beyond it, `from_dict` requires that ``guidance_interval`` rises, and that an ``output_fps`` given as text is in
        range.
        """
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "LipsyncJob",
            "description": "One video to lip-sync. A value of null is the same as leaving the key out.",
            "type": "object",
            "properties": {each.name: option_of(each).schema(default_of(each)) for each in dataclasses.fields(cls)},
            "required": list(cls.required()),
            "additionalProperties": False,
            "if": {"properties": {"enable_deepcache": {"const": True}}, "required": ["enable_deepcache"]},
            "then": {"properties": {"cache_interval": {"enum": [None, PUBLISHED_CACHE_INTERVAL]}}},
        }

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Names of all fields, which are the names of the options too."""
        return tuple(each.name for each in dataclasses.fields(cls))

    @classmethod
    def command_line(cls, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Keywords of ``argparse.ArgumentParser.add_argument`` by option, for example ``"--crf"``.

        Options that are not given are parsed to None, so that `from_dict` can apply other defaults.

        Args:
            names: of the fields wanted, in this order; None takes all.
        """
        fields = {each.name: each for each in dataclasses.fields(cls)}
        wanted = [fields[name] for name in (fields if names is None else names)]
        return {f"--{each.name}": option_of(each).argument(default_of(each)) for each in wanted}

    def sampler_options(self, defaults: ModelDefaults) -> SamplerOptions:
        """How windows are sampled by a model with these defaults."""
        request = SamplerRequest(
            speed=self.speed,
            steps=self.inference_steps,
            guidance_scale=self.guidance_scale,
            solver=self.solver,
            cache_interval=self.cache_interval,
            deepcache=self.enable_deepcache,
            guidance_interval=self.guidance_interval,
            published=self.windows == "published",
        )
        return request.options(defaults.inference_steps, defaults.guidance_scale)

    def resolved(self, defaults: ModelDefaults) -> LipsyncJob:
        """The same job with every choice made that it leaves to speed and model; a seed of -1 is drawn."""
        sampler = self.sampler_options(defaults)
        seed = defaults.seed if self.seed is None else self.seed
        return dataclasses.replace(
            self,
            inference_steps=sampler.steps,
            guidance_scale=sampler.guidance_scale,
            cache_interval=sampler.cache_interval,
            solver=sampler.solver,
            guidance_interval=sampler.guidance_interval,
            seed=seed if seed >= 0 else secrets.randbelow(2**31),
        )

    @property
    def report_path(self) -> Path:
        """The JSON report beside the video."""
        return self.video_out_path.with_suffix(".json")

    def check_paths(self) -> None:
        """Check the paths before any work is done.

        Raises:
            MediaError: an input is missing, an output would replace an input or an existing file unasked, or the
                output cannot be written where it should be.
        """
        inputs = (self.video_path, self.audio_path)
        for what, path in zip(("Video", "Audio"), inputs):
            if not path.is_file():
                raise MediaError(f"{what} file {path} does not exist or is not a file; give an existing file")
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
    """Records how each frame was made and why; consecutive frames with one reason are stored as one span."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.spans: list[FrameSpan] = []

    def add(self, index: int, generated: bool, reason: str | None) -> None:
        """Record output frame ``index`` (in order): whether its mouth was generated, and why it is special."""
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
        width: of the written frames in pixels.
        height: of the written frames in pixels.
        generated_frames: frames with a generated mouth.
        original_frames: frames left as in the source.
        spans: frames that were handled differently, and why.
        warnings: irregularities of the input.
        stage_seconds: busy seconds per stage; stages overlap, so they add up to more than the total.
        total_seconds: wall-clock time.
        first_frame_seconds: from the start of the job until its first frame was handed to the writer.
        settings: model, device and job; every choice left to the model is resolved, so that the job can be repeated.
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
            # Names that are not UTF-8 hold lone surrogates; escaped by backslashes they are valid JSON.
            partial.write_text(self.to_json(), encoding="utf-8", errors="backslashreplace")
            os.replace(partial, path)
        except OSError as error:
            raise MediaError(
                f"{self.video_out_path} is complete, but its report {path} cannot be written ({error.strerror}). "
                "Free disk space to get reports too"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
