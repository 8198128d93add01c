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
from latentsync.build.presets import DETECTORS, PRESETS, ModelFiles, custom_files, preset_files, with_lora
from latentsync.checkpoints.folders import default_root
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.pipelines.job import LipsyncJob
from latentsync.runtime.resources import REPOSITORY

if TYPE_CHECKING:
    from tqdm import tqdm

    from latentsync.pipelines.job import LipsyncResult
    from latentsync.pipelines.lipsync_pipeline import LipsyncEngine

logger = logging.getLogger(__name__)

_NO_MEMORY = (
    "The device's memory is full (%s). Close other programs that use it, try --memory low, choose a smaller model with "
    "--preset 1.5 or demo, or --device cpu"
)


def inference_parser() -> argparse.ArgumentParser:
    """The parser of every option; the published ones keep their names."""
    parser = argparse.ArgumentParser(description="Lip-sync a video to a speech track.", allow_abbrev=False)
    add = parser.add_argument_group("what to make").add_argument
    _add_job_options(add, LipsyncJob.required())
    add("--tasks", type=Path, help="YAML list of jobs instead of the three paths above; keys are named as options are")
    add = parser.add_argument_group("which model").add_argument
    add("--preset", choices=list(PRESETS), help="default: the best one whose weights are here")
    add("--unet_config_path", type=Path, help="with --inference_ckpt_path: a U-Net of your own instead of a preset")
    add("--inference_ckpt_path", type=Path, help="weights that fit --unet_config_path")
    add("--lora", type=Path, metavar="PATH", help="LoRA of this U-Net to merge while loading: a file or peft's folder")
    add("--checkpoints", type=Path, default=default_root(), help="checkpoint folder; default: the standard folders")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--devices", help="instead of --device: several of this computer, cuda:0,cuda:1, or all")
    add("--memory", default="usual", choices=get_args(Memory), help="low: for GPUs of 8 GB, slower")
    add("--window_batch_size", type=int, default=1, help="windows computed together on a large GPU (%(default)s)")
    add("--dtype", default="auto", help="auto, float32, float16, bfloat16")
    add("--compile", action="store_true", help="fuse the networks for a GPU: minutes at the first start, faster then")
    add("--detector", default="auto", choices=DETECTORS, help="face detector (%(default)s)")
    add = parser.add_argument_group("how to make it").add_argument
    _add_job_options(add, [name for name in LipsyncJob.option_names() if name not in LipsyncJob.required()])
    add("--temp_dir", help="accepted for compatibility; nothing is written outside the output's folder")
    add("--verbose", action="store_true", help="show what is found and chosen on the way")
    return parser


def _add_job_options(add: Callable[..., Any], names: Sequence[str]) -> None:
    for flag, keywords in LipsyncJob.command_line(names).items():
        add(flag, **keywords)


def select_files(options: argparse.Namespace) -> ModelFiles:
    """The configuration and weights that the options ask for.

    Raises:
        ConfigError: a configuration without weights or the reverse, or both beside a preset.
        CheckpointError: something is missing.
    """
    return with_lora(_unadapted_files(options), options.lora)


def _unadapted_files(options: argparse.Namespace) -> ModelFiles:
    own = (options.unet_config_path, options.inference_ckpt_path)
    if own == (None, None):
        return preset_files(options.preset, options.checkpoints)
    if None in own:
        raise ConfigError("--unet_config_path and --inference_ckpt_path belong together: give both, or a --preset")
    if options.preset is not None:
        raise ConfigError("--preset already names configuration and weights: leave it out, or leave out the two paths")
    return custom_files(*own, options.checkpoints)


def read_jobs(options: argparse.Namespace) -> list[LipsyncJob]:
    """One job from the options, or those of the task file, whose entries may set any option of their own.

    Raises:
        ConfigError: paths are missing, or the task file is not a list of jobs.
    """
    shared = {name: getattr(options, name) for name in LipsyncJob.option_names() if getattr(options, name) is not None}
    if options.tasks is None:
        missing = [name for name in LipsyncJob.required() if name not in shared]
        if missing:
            raise ConfigError(f"Needed: {', '.join('--' + name for name in missing)} (or --tasks FILE)")
        return [LipsyncJob.from_dict(shared)]
    jobs = []
    for number, entry in enumerate(_read_tasks(options.tasks), 1):
        try:
            jobs.append(LipsyncJob.from_dict(entry, defaults=shared))
        except ConfigError as error:
            raise ConfigError(f"Task {number}: {error}") from error
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
    if not isinstance(entries, ListConfig) or not entries or not all(isinstance(each, DictConfig) for each in entries):
        raise ConfigError(f"Task file {path}: expected a list of entries with video_path, audio_path, ...")
    return cast("list[dict[str, Any]]", OmegaConf.to_container(entries))


def run_job(pipeline: LipsyncEngine, job: LipsyncJob) -> LipsyncResult:
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


def load_pipeline(options: argparse.Namespace, files: ModelFiles) -> LipsyncEngine:
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


def prepare_benchmark(options: argparse.Namespace, video_out_path: Path) -> tuple[LipsyncEngine, LipsyncJob]:
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
    (job,) = read_jobs(argparse.Namespace(**{**vars(options), **paths}))
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
    jobs = read_jobs(options)
    several = len(jobs) > 1
    usable = [job for job in jobs if _succeeds(job, job.check_paths, several)]
    if not usable:
        return 1
    pipeline = load_pipeline(options, files)
    made = [job for job in usable if _succeeds(job, partial(_make, pipeline, job), several)]
    if several and len(made) < len(jobs):
        logger.error("%d of %d jobs failed", len(jobs) - len(made), len(jobs))
    return 0 if len(made) == len(jobs) else 1


def _make(pipeline: LipsyncEngine, job: LipsyncJob) -> None:
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
