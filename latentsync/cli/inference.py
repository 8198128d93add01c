"""Command line of inference: its options, and the run from parsing them to the last report line.

PyTorch and the networks are imported after options, jobs and paths have been checked, so that mistakes are reported at
once.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_args

from latentsync.backends.memory import Memory
from latentsync.build.presets import DETECTORS, PRESETS, ModelFiles, custom_files, preset_files
from latentsync.checkpoints.folders import default_root
from latentsync.diffusion.speed import PUBLISHED_CACHE_INTERVAL, SPEEDS, SamplerRequest
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.runtime.resources import REPOSITORY

if TYPE_CHECKING:
    from tqdm import tqdm

    from latentsync.config.sections import RunConfig
    from latentsync.pipelines.job import LipsyncJob, LipsyncResult
    from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline

logger = logging.getLogger(__name__)

_NO_MEMORY = (
    "The device's memory is full (%s). Close other programs that use it, try --memory low, choose a smaller model with "
    "--preset 1.5 or demo, or --device cpu"
)


def _float_pair(value: Any) -> tuple[float, float]:
    """A list of two numbers, as YAML and the command line give it."""
    if not isinstance(value, list | tuple):
        raise TypeError("no list")
    low, high = map(float, value)
    return low, high


_JOB_OPTIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("video_path", "audio_path", "video_out_path"), Path),
    **dict.fromkeys(("inference_steps", "cache_interval", "seed", "crf"), int),
    **dict.fromkeys(("guidance_scale", "preview"), float),
    **dict.fromkeys(("speed", "solver", "face", "windows", "output_fps", "loop"), str),
    **dict.fromkeys(("enable_deepcache", "keep_silent_frames", "side_by_side", "overwrite"), bool),
    "guidance_interval": _float_pair,
}
_KINDS: dict[Callable[[Any], Any], str] = {
    **{Path: "a path", int: "a whole number", float: "a number", str: "a word", bool: "true or false"},
    _float_pair: "two numbers",
}


def inference_parser() -> argparse.ArgumentParser:
    """The parser of every option; the published ones keep their names."""
    parser = argparse.ArgumentParser(description="Lip-sync a video to a speech track.", allow_abbrev=False)
    add = parser.add_argument_group("what to make").add_argument
    add("--video_path", type=Path, help="the talking head")
    add("--audio_path", type=Path, help="the speech: any file with sound")
    add("--video_out_path", type=Path, help="the result (.mp4, .mov, .mkv); a .json report is written beside it")
    add("--tasks", type=Path, help="YAML list of jobs instead of the three paths above; keys are named as options are")
    add = parser.add_argument_group("which model").add_argument
    add("--preset", choices=list(PRESETS), help="default: the best one whose weights are here")
    add("--unet_config_path", type=Path, help="with --inference_ckpt_path: a U-Net of your own instead of a preset")
    add("--inference_ckpt_path", type=Path, help="weights that fit --unet_config_path")
    add("--checkpoints", type=Path, default=default_root(), help="checkpoint folder; default: the standard folders")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--devices", help="instead of --device: several of this computer, cuda:0,cuda:1, or all")
    add("--memory", default="usual", choices=get_args(Memory), help="low: for GPUs of 8 GB, slower")
    add("--window_batch_size", type=int, default=1, help="windows computed together on a large GPU (%(default)s)")
    add("--dtype", default="auto", help="auto, float32, float16, bfloat16")
    add("--compile", action="store_true", help="fuse the networks for a GPU: minutes at the first start, faster then")
    add("--detector", default="auto", choices=DETECTORS, help="face detector (%(default)s)")
    add = parser.add_argument_group("how to make it").add_argument
    add("--speed", default="exact", help=f"{', '.join(SPEEDS)}: what the options below are if not given (%(default)s)")
    add("--inference_steps", type=int, help="denoising steps; default: the model's own")
    add("--guidance_scale", type=float, help="1.0 to 3.0: more follows the speech harder; default: the model's own")
    add("--seed", type=int, help="equal seeds give equal videos; -1 draws a fresh one; default: the model's own")
    add(
        "--enable_deepcache",
        action="store_true",
        help=f"the same as --cache_interval {PUBLISHED_CACHE_INTERVAL}: faster, softer",
    )
    add("--cache_interval", type=int, metavar="N", help="compute deep features in every N-th step only; 1 = in all")
    add("--solver", help="ddim (as published), dpm++ or unipc, which need fewer steps")
    interval = "guide only in these shares of the steps, 0 (noisiest) to 1"
    add("--guidance_interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help=interval)
    add("--face", default="largest", help="largest, leftmost, rightmost, center, or 0, 1, ... counted from the left")
    add("--windows", default="blend", help="blend, tail, or published (as the public system cuts, pastes and listens)")
    add("--output_fps", default="source", help="source (50 and 60 are halved) or a number such as 25")
    add("--loop", default="pingpong", help="when the speech is longer: pingpong, hold, or error")
    add("--keep_silent_frames", action="store_true", help="leave the source's mouth in silences of 0.5 s and longer")
    add("--preview", type=float, metavar="SECONDS", help="make only the beginning")
    add("--side_by_side", action="store_true", help="show the source to the left of the result")
    add("--crf", type=int, default=14, help="x264 quality, 0 (lossless) to 51 (%(default)s)")
    add("--overwrite", action="store_true", help="replace results that exist")
    add("--temp_dir", help="accepted for compatibility; nothing is written outside the output's folder")
    add("--verbose", action="store_true", help="show what is found and chosen on the way")
    return parser


def select_files(options: argparse.Namespace) -> ModelFiles:
    """The configuration and weights that the options ask for.

    Raises:
        ConfigError: a configuration without weights or the reverse, or both beside a preset.
        CheckpointError: something is missing.
    """
    own = (options.unet_config_path, options.inference_ckpt_path)
    if own == (None, None):
        return preset_files(options.preset, options.checkpoints)
    if None in own:
        raise ConfigError("--unet_config_path and --inference_ckpt_path belong together: give both, or a --preset")
    if options.preset is not None:
        raise ConfigError("--preset already names configuration and weights: leave it out, or leave out the two paths")
    return custom_files(*own, options.checkpoints)


def read_jobs(options: argparse.Namespace, defaults: RunConfig) -> list[LipsyncJob]:
    """One job from the options, or those of the task file, whose entries may set any option of their own.

    Raises:
        ConfigError: paths are missing, or the task file is no list of known options.
    """
    shared = {key: getattr(options, key) for key in _JOB_OPTIONS}
    if options.tasks is None:
        return [_job(shared, defaults)]
    entries = enumerate(_read_tasks(options.tasks), 1)
    jobs = [_job({**shared, **_typed(entry, f"Task {number}")}, defaults) for number, entry in entries]
    twice = [path for path, count in Counter(job.report_path.resolve() for job in jobs).items() if count > 1]
    if twice:
        raise ConfigError(f"Task file {options.tasks}: two results would be called {twice[0].stem}")
    return jobs


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    """The entries of a task file as they stand there."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise ConfigError(f"Task file {path} does not exist")
    try:
        entries = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"Task file {path} is not readable as YAML: {error}") from error
    if not isinstance(entries, ListConfig) or not all(isinstance(entry, DictConfig) for entry in entries):
        raise ConfigError(f"Task file {path}: expected a list of entries with video_path, audio_path, ...")
    return cast("list[dict[str, Any]]", OmegaConf.to_container(entries))


def _typed(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """A task's options, each checked to be of its kind; those left empty are left out."""
    unknown = sorted(str(key) for key in entry if key not in _JOB_OPTIONS)
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(_JOB_OPTIONS)}")
    given = {key: value for key, value in entry.items() if value is not None}
    for key, value in given.items():
        kind = _JOB_OPTIONS[key]
        given[key] = _converted(value, kind)
        if given[key] is None:
            raise ConfigError(f"{where}: {key}: got {value!r}, expected {_KINDS[kind]}")
    return given


def _converted(value: Any, kind: Callable[[Any], Any]) -> Any:
    """The value as that kind, None if it is none: `true` is no number and 7.5 no whole one, but 25 may be a word."""
    if isinstance(value, bool) != (kind is bool) or (kind is int and isinstance(value, float) and value % 1):
        return None
    try:
        return kind(value)
    except (TypeError, ValueError):
        return None


def _job(values: dict[str, Any], defaults: RunConfig) -> LipsyncJob:
    missing = [key for key in ("video_path", "audio_path", "video_out_path") if values[key] is None]
    if missing:
        raise ConfigError(f"Needed: {', '.join('--' + key for key in missing)} (or --tasks FILE)")
    request = SamplerRequest(
        speed=values["speed"],
        steps=values["inference_steps"],
        guidance_scale=values["guidance_scale"],
        solver=values["solver"],
        cache_interval=values["cache_interval"],
        deepcache=values["enable_deepcache"],
        guidance_interval=values["guidance_interval"] and _float_pair(values["guidance_interval"]),
        published=values["windows"] == "published",
    )
    from latentsync.pipelines.job import LipsyncJob

    return LipsyncJob(
        video_path=Path(values["video_path"]),
        audio_path=Path(values["audio_path"]),
        video_out_path=Path(values["video_out_path"]),
        sampler=request.options(defaults.inference_steps, defaults.guidance_scale),
        seed=defaults.seed if values["seed"] is None else values["seed"],
        face=str(values["face"]),
        windows=values["windows"],
        output_fps=str(values["output_fps"]),
        loop=values["loop"],
        preview_seconds=values["preview"],
        keep_silent_frames=values["keep_silent_frames"],
        side_by_side=values["side_by_side"],
        overwrite=values["overwrite"],
        crf=values["crf"],
    )


def run_job(pipeline: LipsyncPipeline, job: LipsyncJob) -> LipsyncResult:
    """Make one video under a progress bar, which appears once the inputs have proved usable."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm(), ExitStack() as stack:
        bar: tqdm[NoReturn] | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                name = job.video_out_path.name
                bar = stack.enter_context(tqdm(unit="frame", desc=name, total=total, dynamic_ncols=True))
            bar.update(done - bar.n)

        return pipeline(job, show)


def describe(result: LipsyncResult) -> str:
    """A result in a few words."""
    lines = [
        f"{result.video_out_path}: {result.num_frames} frames at {float(result.fps):g} fps in "
        f"{result.total_seconds:.1f} s ({result.frames_per_second:.2f} frames/s)"
    ]
    if result.original_frames:
        lines.append(f"  {result.original_frames} frames show the source unchanged:")
        lines += [f"  frames {span.first}-{span.last}: {span.reason}" for span in result.spans[:10]]
    return "\n".join(lines)


def load_pipeline(options: argparse.Namespace, files: ModelFiles) -> LipsyncPipeline:
    """The pipeline that the options ask for, loaded; every command that lip-syncs gets it here.

    Raises:
        ConfigError: a device, precision or detector that cannot be used.
        CheckpointError: weights are damaged or do not fit the configuration.
    """
    from latentsync.backends import placement  # these two import PyTorch and the networks
    from latentsync.build.pipeline import build_face_detector, build_pipeline

    if options.devices and options.device != "auto":
        raise ConfigError(f"--device {options.device} and --devices {options.devices}: give one of them")
    devices = options.devices or options.device
    chosen = placement.choose_placement(
        devices,
        options.dtype,
        compiled=options.compile,
        memory=options.memory,
        window_batch_size=options.window_batch_size,
    )
    make_detector = build_face_detector(options.detector, options.checkpoints, chosen.devices[0])
    return build_pipeline(files, chosen, make_detector)


def prepare_benchmark(options: argparse.Namespace, video_out_path: Path) -> tuple[LipsyncPipeline, LipsyncJob]:
    """The pipeline and the one job that a measurement repeats: the bundled clip and speech where none are given.

    Raises:
        ConfigError: a list of jobs is given, or an option cannot be used.
        CheckpointError: weights are missing or damaged.
        MediaError: a file cannot be read or written.
    """
    if options.tasks is not None:
        raise ConfigError(f"--tasks {options.tasks}: one job is measured; give its --video_path and --audio_path")
    assets = REPOSITORY / "assets"
    paths = {
        "video_path": options.video_path or (assets / "demo_video.mp4"),
        "audio_path": options.audio_path or (assets / "demo_speech.wav"),
        "video_out_path": video_out_path,
    }
    files = select_files(options)
    (job,) = read_jobs(argparse.Namespace(**{**vars(options), **paths}), _run_config(files))
    job.check_paths()
    return load_pipeline(options, files), job


def run_inference(arguments: Sequence[str] | None = None) -> int:
    """Run the inference command line; returns the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    options = inference_parser().parse_args(arguments)
    return run_command(options, partial(_run_all, options))


def run_command(options: argparse.Namespace, work: Callable[[], int]) -> int:
    """Do a command's work; returns its exit code, or 1 after an error and 130 after Ctrl-C, each told in the log."""
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("latentsync").setLevel(logging.INFO)
    _install_signal_handlers()
    try:
        return work()
    except LatentSyncError as error:
        logger.error("%s", error)
        return 1
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        logger.error(_NO_MEMORY, _first_line(error))
        return 1
    except KeyboardInterrupt:
        logger.error("Stopped; nothing unfinished was left behind")
        return 130


def _run_all(options: argparse.Namespace) -> int:
    files = select_files(options)
    jobs = read_jobs(options, _run_config(files))
    several = len(jobs) > 1
    usable = [job for job in jobs if _succeeds(job, job.check_paths, several)]
    if not usable:
        return 1
    pipeline = load_pipeline(options, files)
    made = [job for job in usable if _succeeds(job, partial(_make, pipeline, job), several)]
    if several and len(made) < len(jobs):
        logger.error("%d of %d jobs failed", len(jobs) - len(made), len(jobs))
    return 0 if len(made) == len(jobs) else 1


def _make(pipeline: LipsyncPipeline, job: LipsyncJob) -> None:
    logger.info("%s", describe(run_job(pipeline, job)))


def _succeeds(job: LipsyncJob, step: Callable[[], None], named: bool) -> bool:
    """Whether a step of a job goes well; what does not is told, by the job's name if asked, and the others go on."""
    try:
        step()
    except LatentSyncError as error:
        logger.error("%s%s", f"{job.video_out_path}: " if named else "", error)
        return False
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        logger.error("%s" + _NO_MEMORY, f"{job.video_out_path}: " if named else "", _first_line(error))
        return False
    return True


def _run_config(files: ModelFiles) -> RunConfig:
    from latentsync.config.load import load_config

    return load_config(files.config_path).run


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch  # imported long before it can run out of memory

    return isinstance(error, torch.OutOfMemoryError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no details"])[0]


def _install_signal_handlers() -> None:
    """Treat a polite kill and a closed terminal as Ctrl-C; under nohup, which ignores the latter, it stays ignored."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
