"""The stages that make the demo model's encoders, each a function of the configuration and a folder.

Folder layout: ``speech/`` (arrays), ``audio/`` and ``vae/`` (training runs, as docs/training.md describes them),
``demo/`` (the trained files, named as in ``checkpoints/demo``).
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from latentsync.face.compositing.masks import load_mask
from latentsync.runtime.random_state import seed_everything
from latentsync.synthetic.speech.text import Split
from latentsync.training.demo.audio_batches import TracksOnDevice
from latentsync.training.demo.audio_task import AudioEncoderTask, AudioStageOptions, audio_encoder_path
from latentsync.training.demo.clips import ImageBank, PhotoCrops, sample_mouth_states
from latentsync.training.demo.config import DemoConfig
from latentsync.training.demo.generated_batches import GeneratedBatches
from latentsync.training.demo.head_clips import HeadClips
from latentsync.training.demo.photos import load_photos
from latentsync.training.demo.speech_tracks import SpeechTracks, make_tracks
from latentsync.training.demo.vae_task import VaeImages, VaeStageOptions, VaeTask, vae_folder
from latentsync.training.loop.options import CheckpointOptions, TrainerOptions
from latentsync.training.loop.task import BatchSource, TrainingTask
from latentsync.training.loop.trainer import Trainer

logger = logging.getLogger(__name__)

_HELD_OUT_TRACKS = 8
_HELD_OUT_FACES = 12
_HELD_OUT_SEED = 10_000_000
_VAE_SEED = 20_000_000
_MOUTH_STATES = 50_000
_VAE_MOTION_FPS = 2.0  # frames of a clip are half a second apart, so that few clips show many poses
_VAE_EPOCH = 1000  # steps; the images are endless
_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class DemoRun:
    """One run of the recipe.

    Attributes:
        config: the recipe.
        folder: everything is written below it.
        device: where the networks are trained.
    """

    config: DemoConfig
    folder: Path
    device: torch.device

    @property
    def trained(self) -> Path:
        """Folder of the trained files."""
        return self.folder / "demo"

    def tracks(self, split: Split) -> SpeechTracks:
        """The speech that the stage `speech` made."""
        return SpeechTracks.load(self.folder / "speech" / split)

    def train(self, task: TrainingTask, source: BatchSource, seconds: float, seed: int) -> Path | None:
        """Train, resuming where the run folder of the task ends; see `Trainer.run` for errors.

        Returns:
            Folder of the last checkpoint; None if a signal ended the training before its time.
        """
        config = self.config
        stage: AudioStageOptions | VaeStageOptions = getattr(config, task.name)
        options = TrainerOptions(
            run_folder=self.folder / task.name,
            update=stage.optimizer,
            checkpoints=CheckpointOptions(0, save_ckpt_seconds=config.save_seconds, keep_last=_KEPT_CHECKPOINTS),
            max_train_steps=config.max_steps or -1,
            max_train_seconds=seconds,
            validation_steps=config.validation_steps,
            batch_size=stage.batch_size,
            cpu=self.device.type == "cpu",
            compile=isinstance(stage, VaeStageOptions) and stage.compile,
            seed=seed,
            config={"seed": config.seed, "clips": asdict(config.clips), task.name: asdict(stage)},
        )
        result = Trainer(task, source, options).run()
        return None if result.ended_by == "signal" else result.checkpoint


def run_speech(run: DemoRun, seconds: float) -> bool:
    """Make the training speech, and a little from held-out words and voices."""
    options, started = run.config.speech, time.monotonic()
    workers = options.workers or max(1, (os.cpu_count() or 1) - 2)
    held_out = min(_HELD_OUT_TRACKS, options.max_tracks)
    make_tracks(0.15 * seconds, _HELD_OUT_SEED, "held_out", held_out, 1).save(run.folder / "speech" / "held_out")
    remaining = started + seconds - time.monotonic()
    tracks = make_tracks(remaining, run.config.seed, "train", options.max_tracks, workers)
    tracks.save(run.folder / "speech" / "train")
    logger.info("speech: %d tracks of 30 s in %.0f s", len(tracks), time.monotonic() - started)
    return True


def run_audio(run: DemoRun, seconds: float) -> bool:
    """Train the audio encoder on the tracks of the stage `speech`."""
    options, seed = run.config.audio, run.config.seed + 1
    held_out, training = run.tracks("held_out"), TracksOnDevice(run.tracks("train"), run.device)

    def draw(number: int, seed: int) -> object:
        return training.augmented(options.batch_size, torch.Generator(run.device).manual_seed(seed))

    seed_everything(seed)
    task = AudioEncoderTask(options, held_out, seed)
    source = GeneratedBatches(draw, max(1, len(training) // options.batch_size), seed)
    checkpoint = run.train(task, source, seconds, seed)
    if checkpoint is None:
        return False
    run.trained.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(audio_encoder_path(checkpoint), audio_encoder_path(run.trained))
    return True


def run_vae(run: DemoRun, seconds: float) -> bool:
    """Train the VAE; makes the few mouth curves it needs itself, so that it can start at once."""
    options, seed = run.config.vae, run.config.seed + 2
    generator = torch.Generator(run.device).manual_seed(seed)
    bank, held_out = _images(run, seconds, generator)
    mask = load_mask(run.config.clips.mask, run.config.clips.resolution)
    seed_everything(seed)
    task = VaeTask(options, bank, mask, held_out)
    images = VaeImages(options, bank, mask.to(run.device), generator)
    checkpoint = run.train(task, GeneratedBatches(images.draw, _VAE_EPOCH, seed), seconds, seed)
    if checkpoint is None:
        return False
    shutil.copytree(vae_folder(checkpoint), vae_folder(run.trained), dirs_exist_ok=True)
    return True


def _images(run: DemoRun, seconds: float, generator: torch.Generator) -> tuple[ImageBank, torch.Tensor]:
    """A filled bank of training images, and faces of held-out people (n, 3, R, R)."""
    options, resolution, device = run.config.vae, run.config.clips.resolution, run.device
    speech = make_tracks(0.02 * seconds, _VAE_SEED, "train", min(12, run.config.speech.max_tracks), 1)
    curves = torch.from_numpy(speech.curves.astype(np.float32)).to(device)
    photos = load_photos()
    crops = PhotoCrops(photos, resolution, device) if photos else None
    source = HeadClips(resolution, device, "train", _VAE_MOTION_FPS)
    bank = ImageBank(options.bank_capacity, source, crops, sample_mouth_states(curves, _MOUTH_STATES, generator))
    bank.fill(options.bank_warmup_clips, 0.1 * seconds, generator)
    others = HeadClips(resolution, device, "held_out", _VAE_MOTION_FPS)
    own = torch.Generator(device).manual_seed(run.config.seed + 3)
    states = sample_mouth_states(curves, _HELD_OUT_FACES, own)
    return bank, torch.cat([others.clips(state[None, None], own)[0] for state in states])


STAGES: dict[str, Callable[[DemoRun, float], bool]] = {"speech": run_speech, "audio": run_audio, "vae": run_vae}
"""Stages by name: (run, seconds it may take) -> whether it was done, False if a signal ended it."""
