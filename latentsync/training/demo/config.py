"""Configuration of the demo model's encoder training, read from ``configs/training/demo.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from latentsync.errors import ConfigError
from latentsync.training.demo.audio_task import AudioStageOptions
from latentsync.training.demo.vae_task import VaeStageOptions


@dataclass(frozen=True)
class Seconds:
    """Seconds of wall clock that the stages take."""

    speech: float = 35.0
    audio: float = 110.0
    vae: float = 200.0


@dataclass(frozen=True)
class SpeechOptions:
    """How much speech is synthesized.

    Attributes:
        max_tracks: of 30 s each, if time permits.
        workers: processes; 0 = one per core, less two.
    """

    max_tracks: int = 1200
    workers: int = 0


@dataclass(frozen=True)
class ImageOptions:
    """What the training images are.

    Attributes:
        resolution: side of the aligned crop.
        mask: name of the fixed mask.
    """

    resolution: int = 256
    mask: str = "mask"


@dataclass(frozen=True)
class DemoConfig:
    """The whole recipe; see the parts.

    Attributes:
        seed: of everything.
        seconds, speech, clips, audio, vae: the parts.
        max_steps: ends every training after so many steps; 0 = by time only.
        save_seconds: seconds between checkpoints.
        validation_steps: steps between validations.
    """

    seed: int = 1247
    seconds: Seconds = field(default_factory=Seconds)
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    clips: ImageOptions = field(default_factory=ImageOptions)
    audio: AudioStageOptions = field(default_factory=AudioStageOptions)
    vae: VaeStageOptions = field(default_factory=VaeStageOptions)
    max_steps: int = 0
    save_seconds: float = 60.0
    validation_steps: int = 1000


def load_demo_config(path: Path, overrides: tuple[str, ...] = ()) -> DemoConfig:
    """Read a recipe.

    Args:
        path: YAML file whose sections are the fields of `DemoConfig`.
        overrides: ``section.key=value``; they win over the file.

    Raises:
        ConfigError: the file is missing, a key is unknown, or a value does not fit.
    """
    if not path.is_file():
        raise ConfigError(
            f"Training configuration {path} does not exist; the ready-made one is configs/training/demo.yaml"
        )
    merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
    content: Any = OmegaConf.to_container(merged, resolve=True)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected sections such as audio and vae, found {type(content).__name__}")
    config: DemoConfig = _updated(DemoConfig(), content, "training configuration")
    return config


def _updated(default: Any, content: Mapping[str, Any], where: str) -> Any:
    """A dataclass with the values of a section in place of its own; sections within it likewise."""
    known = {field.name for field in fields(default)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    values: dict[str, Any] = {}
    for name, value in content.items():
        present = getattr(default, name)
        if is_dataclass(present):
            values[name] = _updated(present, value, f"{where}.{name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return replace(default, **values)
