"""What decides how the demo model's encoders are made, read from ``configs/training/demo.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf

from latentsync.errors import ConfigError
from latentsync.training.demo.audio_stage import AudioStageOptions
from latentsync.training.demo.vae_stage import VaeStageOptions

Built = TypeVar("Built")


@dataclass(frozen=True)
class Seconds:
    """Time budgets of the stages in seconds of wall clock."""

    speech: float = 35.0
    audio: float = 110.0
    vae: float = 200.0


@dataclass(frozen=True)
class SpeechOptions:
    """How much speech is made.

    Attributes:
        max_tracks: of 30 s each, if the time suffices.
        workers: processes; 0 = one per core, less two.
    """

    max_tracks: int = 1200
    workers: int = 0


@dataclass(frozen=True)
class ImageOptions:
    """What the training pictures are.

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
        max_steps: ends every stage after so many steps, 0 = by time only.
        save_seconds: how often trained files are renewed.
    """

    seed: int = 1247
    seconds: Seconds = field(default_factory=Seconds)
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    clips: ImageOptions = field(default_factory=ImageOptions)
    audio: AudioStageOptions = field(default_factory=AudioStageOptions)
    vae: VaeStageOptions = field(default_factory=VaeStageOptions)
    max_steps: int = 0
    save_seconds: float = 60.0


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
    return _build(DemoConfig, content, "training configuration")


def _build(kind: type[Built], content: Mapping[str, Any], where: str) -> Built:
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(content) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
    values: dict[str, Any] = {}
    for name, value in content.items():
        if is_dataclass(hints[name]):
            values[name] = _build(hints[name], value, f"{where}.{name}")  # type: ignore[arg-type]
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
