"""The command lines of training: read the configuration, make what is missing of a synthetic corpus, train."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from latentsync.build.paths import find_file
from latentsync.build.training import build_syncnet_trainer, build_unet_trainer
from latentsync.config.load import load_config, load_syncnet_config
from latentsync.config.sections import ClipsConfig
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.synthetic.corpus import REPORT, CorpusOptions, make_corpus
from latentsync.synthetic.scene_writer import is_complete
from latentsync.training.loop.options import TrainingResult
from latentsync.training.loop.processes import current_shard, shutdown_distributed
from latentsync.training.loop.task import Shard
from latentsync.training.loop.trainer import Trainer

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


def train_unet(arguments: Sequence[str] | None = None) -> int:
    """Train a U-Net from the command line; returns the exit code: 0, 1 after an error."""
    options = _parser("U-Net", "unet_config_path", "configs/unet/demo.yaml").parse_intermixed_args(arguments)

    def build(device: torch.device, shard: Shard) -> Trainer:
        config = load_config(_config_path(options), _overrides(options))
        _provide_corpus(config.data, device, shard)
        return build_unet_trainer(config, shard, device)

    return _run(options, build)


def train_syncnet(arguments: Sequence[str] | None = None) -> int:
    """Train a SyncNet from the command line; returns the exit code: 0, 1 after an error."""
    options = _parser("SyncNet", "config_path", "configs/syncnet/demo.yaml").parse_intermixed_args(arguments)

    def build(device: torch.device, shard: Shard) -> Trainer:
        config = load_syncnet_config(_config_path(options), _overrides(options))
        _provide_corpus(config.data, device, shard)
        return build_syncnet_trainer(config, shard, device)

    return _run(options, build)


def _parser(what: str, option: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Train a {what}. See docs/training.md.")
    parser.add_argument("settings", nargs="*", metavar="CONFIG | SECTION.KEY=VALUE", help=f"such as {example}")
    parser.add_argument(f"--{option}", dest="config_path", help="the configuration, as the published commands name it")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to train")
    return parser


def _config_path(options: argparse.Namespace) -> Path:
    named = [setting for setting in options.settings if "=" not in setting]
    named += [options.config_path] if options.config_path else []
    if len(named) != 1:
        raise ConfigError(f"Name one configuration file, such as configs/unet/demo.yaml; got {named or 'none'}")
    return find_file(named[0], "The configuration")


def _overrides(options: argparse.Namespace) -> list[str]:
    return [setting for setting in options.settings if "=" in setting]


def _run(options: argparse.Namespace, build: Callable[[torch.device, Shard], Trainer]) -> int:
    shard = current_shard()
    level = logging.INFO if shard.rank == 0 else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("latentsync").setLevel(level)
    try:
        device = _device(options.device, shard)
        # Otherwise log lines and progress bars overwrite each other.
        with logging_redirect_tqdm():
            trainer = build(device, shard)
            logger.info("The run, its charts and its samples: %s", trainer.options.run_folder)
            result = trainer.run()
    except LatentSyncError as error:
        logger.error("%s", error)
        return 1
    except torch.OutOfMemoryError as error:
        # The loop reports its steps; this was while encoding clips or validating.
        logger.error("The GPU's memory is full (%s). End what else runs on it, or lower data.batch_size", error)
        return 1
    except KeyboardInterrupt:
        logger.error("Stopped before training began; the same command starts it again")
        return 130
    finally:
        shutdown_distributed()
    if shard.rank == 0:
        logger.info("Ended by %s: %s", result.ended_by, _summary(result))
    # A script that trains one network after another must not continue with a partial one.
    return 130 if result.ended_by == "signal" else 0


def _summary(result: TrainingResult) -> str:
    summary = f"{result.steps} steps in {result.seconds:.0f} s"
    if result.steps_per_second:
        summary += f", {result.steps_per_second:.2f} steps/s"
    if result.peak_cuda_bytes:
        summary += f", at most {result.peak_cuda_bytes / 1e9:.2f} GB on the GPU"
    return summary


def _device(name: str, shard: Shard) -> torch.device:
    if name == "cpu" or not torch.cuda.is_available():
        if name == "cuda":
            raise ConfigError("--device cuda: there is no usable GPU here; leave the option out to train on the CPU")
        return torch.device("cpu")
    device = torch.device("cuda", shard.rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _provide_corpus(data: ClipsConfig, device: torch.device, shard: Shard) -> None:
    """Make what is missing of the synthetic corpus that a configuration describes, or wait until it is there.

    Raises:
        ConfigError: the configuration's folders are not those of one corpus.
    """
    wanted = data.corpus
    train, val = Path(data.train_data_dir), Path(data.val_data_dir)
    if not wanted.scenes or data.train_fileslist or (train.is_dir() and not (train.parent / REPORT).is_file()):
        return
    if train.name != "train" or val != train.parent / "val":
        raise ConfigError(
            f"data.corpus makes FOLDER/train and FOLDER/val, but train_data_dir is {train} and val_data_dir {val}. "
            "Name those two, or set data.corpus.scenes=0"
        )
    options = CorpusOptions(
        out=train.parent,
        scenes=wanted.scenes,
        val_scenes=wanted.val_scenes,
        resolution=wanted.resolution,
        seconds=wanted.seconds,
        seed=wanted.seed,
        devices=(str(device),),
    )
    if shard.rank > 0:
        while not all(is_complete(options.out, *scene) for scene in options.scene_jobs):
            time.sleep(_POLL_SECONDS)  # the first process makes it; if that fails, the launcher ends this one
        return
    with tqdm(desc=f"making the corpus {train.parent}", unit="scene") as bar:

        def show(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        make_corpus(options, show)
