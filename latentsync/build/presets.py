"""Model presets and the files that a model is loaded from; importing this module does not import torch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from latentsync.checkpoints import registry as checkpoints
from latentsync.errors import CheckpointError, ConfigError
from latentsync.runtime.resources import REPOSITORY

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.yaml"
UNET_NAMES = ("unet.safetensors", "unet.pt")
AUDIO_ENCODER_NAMES = ("audio_encoder.safetensors", "audio_encoder.pt")
VAE_FOLDER = "vae"
_DEMO_LICENCE = "Apache-2.0"


DETECTORS = ("auto", "mediapipe", "insightface")
"""Kinds of face detectors."""


@dataclass(frozen=True)
class Preset:
    """A model version.

    Attributes:
        config: name of the configuration file.
        unet, audio_encoder, vae: names of the weights in `latentsync.checkpoints.registry`.
        resolution: side of the generated faces in pixels, as in the configuration.
    """

    config: str
    unet: str
    audio_encoder: str
    vae: str
    resolution: int

    @property
    def config_path(self) -> Path:
        """The configuration file."""
        return REPOSITORY / "configs" / "unet" / self.config

    @property
    def weights(self) -> tuple[str, str, str]:
        """Names of all weights."""
        return self.unet, self.audio_encoder, self.vae


PRESETS = {
    "1.6": Preset("stage2_512.yaml", "unet-1.6", "whisper-tiny", "vae", 512),
    "1.5": Preset("stage2.yaml", "unet-1.5", "whisper-tiny", "vae", 256),
    "demo": Preset("demo.yaml", "demo-unet", "demo-audio-encoder", "demo-vae", 256),
}
"""Best first: without a choice, the first one whose weights are all present is used."""


@dataclass(frozen=True)
class ModelInfo:
    """A preset and the state of its weights.

    Attributes:
        name: a key of `PRESETS`.
        present: whether all weights are there.
        files: where each of them is; None for a missing one.
        resolution: side of the generated faces in pixels.
        licence: terms of the U-Net's weights.
    """

    name: str
    present: bool
    files: Mapping[str, Path | None]
    resolution: int
    licence: str


@dataclass(frozen=True)
class ModelFiles:
    """Everything that a pipeline is loaded from.

    Attributes:
        name: of the model, for reports.
        config_path: the configuration.
        unet, audio_encoder, vae: weights; the VAE may be a folder.
        lora: a low-rank adaptation to merge into the U-Net: a file or peft's folder.
    """

    name: str
    config_path: Path
    unet: Path
    audio_encoder: Path
    vae: Path
    lora: Path | None = None


def available_models(root: str | Path | None = None) -> list[ModelInfo]:
    """Every preset, best first, with the state of its weights.

    Args:
        root: the checkpoint folder; None is the default one.
    """
    folder = checkpoints.default_root() if root is None else Path(root)
    models = []
    for name, preset in PRESETS.items():
        files = {part: checkpoints.find(part, folder) for part in preset.weights}
        published = checkpoints.CHECKPOINTS.get(preset.unet)
        licence = _DEMO_LICENCE if published is None else published.licence
        models.append(ModelInfo(name, None not in files.values(), files, preset.resolution, licence))
    return models


def preset_files(name: str | None, root: Path | None = None) -> ModelFiles:
    """The files of a preset; without a name, of the best preset that is complete.

    Args:
        name: a key of `PRESETS`, or None.
        root: the checkpoint folder; None searches the standard ones.

    Raises:
        ConfigError: unknown name.
        CheckpointError: a file is missing; the message says how to get it.
    """
    if name is None:
        name = next((model.name for model in available_models(root) if model.present), "demo")
        logger.info("Model version %s (the best one whose weights are present)", name)
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    unet, audio_encoder, vae = (checkpoints.resolve(part, root) for part in preset.weights)
    return ModelFiles(name, preset.config_path, unet, audio_encoder, vae)


def custom_files(config_path: Path, unet: Path, root: Path | None = None) -> ModelFiles:
    """The files for a U-Net of your own, with the audio encoder and VAE that fit its configuration.

    Raises:
        CheckpointError: one of them is missing; the message says how to get it.
        ConfigError: the configuration cannot be read.
    """
    audio_encoder, vae = _companions(config_path)
    return ModelFiles(
        "custom", config_path, unet, checkpoints.resolve(audio_encoder, root), checkpoints.resolve(vae, root)
    )


def folder_files(folder: Path, root: Path | None = None) -> ModelFiles:
    """The files of a model folder of your own.

    It holds ``config.yaml`` and ``unet.safetensors`` or ``unet.pt``, and may hold ``audio_encoder.safetensors`` (or
    ``.pt``) and ``vae/`` (a diffusers folder). What it lacks is taken from the checkpoint folder, as by `custom_files`.

    Args:
        folder: the model folder.
        root: the checkpoint folder.

    Raises:
        CheckpointError: weights are missing; the message says which.
        ConfigError: the folder has no configuration, or it cannot be read.
    """
    config_path = folder / CONFIG_NAME
    if not config_path.is_file():
        raise ConfigError(f"Model folder {folder}: got no {CONFIG_NAME}; expected the configuration of the U-Net there")
    unet = _first_file(folder, UNET_NAMES)
    if unet is None:
        raise CheckpointError(f"Model folder {folder}: got no weights; expected {' or '.join(UNET_NAMES)} there")
    audio_encoder = _first_file(folder, AUDIO_ENCODER_NAMES)
    vae = folder / VAE_FOLDER if (folder / VAE_FOLDER).is_dir() else None
    if audio_encoder is None or vae is None:
        audio_name, vae_name = _companions(config_path)
        audio_encoder = audio_encoder or checkpoints.resolve(audio_name, root)
        vae = vae or checkpoints.resolve(vae_name, root)
    return ModelFiles(folder.resolve().name, config_path, unet, audio_encoder, vae)


def with_lora(files: ModelFiles, path: Path | None) -> ModelFiles:
    """The same files with a low-rank adaptation to merge into the U-Net; None changes nothing.

    Raises:
        CheckpointError: there is neither a file nor a folder of that name.
    """
    if path is None:
        return files
    if not path.exists():
        raise CheckpointError(f"LoRA {path} does not exist; expected a .safetensors or .pt file, or peft's folder")
    return replace(files, lora=path)


def copy_model(files: ModelFiles, folder: Path) -> Path:
    """Copy a model into a folder as `folder_files` finds it; the configuration is written without its bases.

    Args:
        files: the model. A LoRA is not copied.
        folder: created where it does not exist; files in it are replaced.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    import yaml

    from latentsync.config.load import as_dictionary, load_config

    config = as_dictionary(load_config(files.config_path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        _copy_weights(files.unet, folder, UNET_NAMES)
        _copy_weights(files.audio_encoder, folder, AUDIO_ENCODER_NAMES)
        if files.vae.resolve() != (folder / VAE_FOLDER).resolve():
            shutil.copytree(files.vae, folder / VAE_FOLDER, dirs_exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"Model folder {folder} cannot be written ({error.strerror or error}); expected a folder with enough free "
            "space that you may write to"
        ) from error
    return folder


def _copy_weights(file: Path, folder: Path, names: tuple[str, str]) -> None:
    """Copy weights under the accepted name of their format, of which one at most may be there."""
    name, other = names if file.suffix == ".safetensors" else names[::-1]
    if file.resolve() != (folder / name).resolve():
        shutil.copyfile(file, folder / name)
    (folder / other).unlink(missing_ok=True)


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _companions(config_path: Path) -> tuple[str, str]:
    """Names of the audio encoder and VAE that a configuration is made for."""
    from latentsync.config.load import load_config  # OmegaConf takes longer to import than all of the above

    width = load_config(config_path).model.cross_attention_dim
    published = {384: "whisper-tiny", 768: "whisper-small"}.get(width)
    return published or "demo-audio-encoder", "vae" if published else "demo-vae"
