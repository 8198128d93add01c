"""The stages that make the demo model's encoders, each a function of the recipe and a folder.

Folder layout: ``speech/`` (arrays), ``demo/`` (the trained files, named as in ``checkpoints/demo``), ``report/`` (logs,
figures, sheets).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from latentsync.face.compositing.masks import load_mask
from latentsync.synthetic.speech.text import Split
from latentsync.training.demo.audio_stage import train_audio
from latentsync.training.demo.clips import PhotoCrops
from latentsync.training.demo.config import DemoConfig
from latentsync.training.demo.head_clips import HeadClips
from latentsync.training.demo.photos import load_photos
from latentsync.training.demo.speech_tracks import SpeechTracks, make_tracks
from latentsync.training.demo.stage import StageContext
from latentsync.training.demo.time_budget import TimeBudget
from latentsync.training.demo.vae_stage import FaceMaterial, train_vae

logger = logging.getLogger(__name__)

_HELD_OUT_TRACKS = 8
_SPLITS: tuple[Split, ...] = ("train", "held_out")
_HELD_OUT_SEED = 10_000_000
_VAE_SEED = 20_000_000
_VAE_MOTION_FPS = 2.0  # pictures of a clip are half a second apart, so that few clips show many poses


@dataclass(frozen=True)
class DemoRun:
    """One training run.

    Attributes:
        config: the recipe.
        folder: everything is written below it.
        device: where the networks are trained.
    """

    config: DemoConfig
    folder: Path
    device: torch.device

    def context(self, seconds: float, offset: int) -> StageContext:
        """Surroundings of a stage; every stage has a seed of its own."""
        return StageContext(
            device=self.device,
            seconds=seconds,
            folder=self.folder / "report",
            checkpoint_folder=self.folder / "demo",
            seed=self.config.seed + offset,
            max_steps=self.config.max_steps,
            save_seconds=self.config.save_seconds,
        )

    def tracks(self, split: str) -> SpeechTracks:
        """The speech that the stage `speech` left: split "train" or "held_out"."""
        return SpeechTracks.load(self.folder / "speech" / split)


def run_speech(run: DemoRun, seconds: float) -> None:
    """Make the training speech and a little with words that it does not contain."""
    options = run.config.speech
    workers = options.workers or max(1, (os.cpu_count() or 1) - 2)
    held_out = min(_HELD_OUT_TRACKS, options.max_tracks)
    budget = TimeBudget(seconds)
    make_tracks(TimeBudget(0.15 * seconds), _HELD_OUT_SEED, "held_out", held_out, 1).save(
        run.folder / "speech" / "held_out"
    )
    tracks = make_tracks(budget, run.config.seed, "train", options.max_tracks, workers)
    tracks.save(run.folder / "speech" / "train")
    logger.info("speech: %d tracks of 30 s in %.0f s", len(tracks), budget.elapsed)


def run_audio(run: DemoRun, seconds: float) -> None:
    """Train the audio encoder on the stage `speech`'s tracks."""
    train_audio(run.config.audio, run.tracks("train"), run.tracks("held_out"), run.context(seconds, 1))


def run_vae(run: DemoRun, seconds: float) -> None:
    """Train the autoencoder; makes the few mouth curves it needs itself, so that it can start at once."""
    context, clips = run.context(seconds, 2), run.config.clips
    limit = min(12, run.config.speech.max_tracks)
    speech = make_tracks(TimeBudget(0.02 * seconds), _VAE_SEED, "train", limit, 1)
    photos = load_photos()
    pieces = PhotoCrops(photos, clips.resolution, run.device) if photos else None
    source, held_out = (HeadClips(clips.resolution, run.device, split, _VAE_MOTION_FPS) for split in _SPLITS)
    curves = torch.from_numpy(speech.curves.astype(np.float32))
    material = FaceMaterial(source, held_out, pieces, curves, load_mask(clips.mask, clips.resolution))
    train_vae(run.config.vae, material, context)


STAGES: dict[str, Callable[[DemoRun, float], None]] = {
    "speech": run_speech,
    "audio": run_audio,
    "vae": run_vae,
}
