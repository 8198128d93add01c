"""Model versions and the files they are loaded from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from latentsync.checkpoints import registry as checkpoints
from latentsync.errors import ConfigError
from latentsync.runtime.resources import REPOSITORY

logger = logging.getLogger(__name__)


DETECTORS = ("auto", "mediapipe", "insightface")
"""Kinds of face detectors."""


@dataclass(frozen=True)
class Preset:
    """A model version: its configuration file and the names of its weights in `latentsync.checkpoints.registry`."""

    config: str
    unet: str
    audio_encoder: str
    vae: str

    @property
    def config_path(self) -> Path:
        """The configuration file in this repository."""
        return REPOSITORY / "configs" / "unet" / self.config


PRESETS = {
    "1.6": Preset("stage2_512.yaml", "unet-1.6", "whisper-tiny", "vae"),
    "1.5": Preset("stage2.yaml", "unet-1.5", "whisper-tiny", "vae"),
    "demo": Preset("demo.yaml", "demo-unet", "demo-audio-encoder", "demo-vae"),
}
"""Best first: without a choice, the first one whose weights are all there is taken."""


@dataclass(frozen=True)
class ModelFiles:
    """Everything the pipeline is loaded from."""

    name: str
    config_path: Path
    unet: Path
    audio_encoder: Path
    vae: Path


def preset_files(name: str | None, root: Path | None = None) -> ModelFiles:
    """Find a preset's files; without a name, those of the best preset that is complete.

    Args:
        name: a key of `PRESETS`, or None.
        root: the checkpoint folder; None searches the standard ones.

    Raises:
        ConfigError: unknown name.
        CheckpointError: a file is missing; the message says how to get it.
    """
    if name is None:
        complete = [key for key in PRESETS if all(checkpoints.find(part, root) for part in checkpoints.GROUPS[key])]
        name = complete[0] if complete else "demo"
        logger.info("Model version %s (the best one whose weights are here)", name)
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    unet, audio_encoder, vae = (
        checkpoints.resolve(part, root) for part in (preset.unet, preset.audio_encoder, preset.vae)
    )
    return ModelFiles(name, preset.config_path, unet, audio_encoder, vae)


def custom_files(config_path: Path, unet: Path, root: Path | None = None) -> ModelFiles:
    """Files for a U-Net of your own: the audio encoder and VAE that its configuration goes with.

    Raises:
        CheckpointError: one of them is missing; the message says how to get it.
        ConfigError: the configuration cannot be read.
    """
    from latentsync.config.load import load_config  # with OmegaConf, which presets do not need

    width = load_config(config_path).model.cross_attention_dim
    published = {384: "whisper-tiny", 768: "whisper-small"}.get(width)
    audio_encoder = checkpoints.resolve(published or "demo-audio-encoder", root)
    vae = checkpoints.resolve("vae" if published else "demo-vae", root)
    return ModelFiles("custom", config_path, unet, audio_encoder, vae)
