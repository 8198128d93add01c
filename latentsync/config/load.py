"""Reading configuration files: typed sections, ``base:`` inheritance, unknown keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentsync.config.sections import (
    CkptConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SchedulerConfig,
    SyncNetDataConfig,
    SyncNetModelConfig,
    SyncNetRunConfig,
    TrepaConfig,
)
from latentsync.errors import ConfigError

Kind = TypeVar("Kind")


@dataclass
class Config:
    """One U-Net configuration file, for training and inference."""

    data: DataConfig = field(default_factory=DataConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)
    run: RunConfig = field(default_factory=RunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trepa: TrepaConfig = field(default_factory=TrepaConfig)
    losses: dict[str, LossConfig] = field(default_factory=dict)


@dataclass
class SyncNetConfig:
    """One SyncNet configuration file."""

    data: SyncNetDataConfig = field(default_factory=SyncNetDataConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)
    run: SyncNetRunConfig = field(default_factory=SyncNetRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: SyncNetModelConfig = field(default_factory=SyncNetModelConfig)
    losses: dict[str, LossConfig] = field(default_factory=dict)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a U-Net configuration file.

    Args:
        path: a YAML file; its ``base:`` names a file beside it whose values it inherits.
        overrides: ``section.key=value`` settings that win over the file.

    Returns:
        The typed configuration, every value checked.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown, or a value is of the wrong kind or out of range.
    """
    return _load(Config, path, overrides, "configs/unet/_base.yaml")


def load_syncnet_config(path: Path, overrides: Sequence[str] = ()) -> SyncNetConfig:
    """Read a SyncNet configuration file; as `load_config`."""
    return _load(SyncNetConfig, path, overrides, "configs/syncnet/_base.yaml")


def as_dictionary(config: Config | SyncNetConfig) -> dict[str, Any]:
    """Every value of a configuration as plain dictionaries, lists and numbers."""
    content: Any = OmegaConf.to_container(OmegaConf.structured(config))
    return content  # type: ignore[no-any-return]


def _load(kind: type[Kind], path: Path, overrides: Sequence[str], example: str) -> Kind:
    merged: Any = _with_bases(path, seen=())
    if overrides:
        merged = OmegaConf.merge(merged, _read_overrides(overrides))
    try:
        typed = OmegaConf.merge(OmegaConf.structured(kind), merged)
        result: Any = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: {error.full_key or 'a section'}: {reason}. Compare with {example}") from error
    if not isinstance(result, kind):
        raise ConfigError(f"{path}: expected sections such as data, run and model. Compare with {example}")
    return result


def _with_bases(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: its chain of `base:` files comes back to itself")
    if not path.is_file():
        raise ConfigError(f"Configuration {path} does not exist; the ready-made ones are in configs/")
    try:
        content = OmegaConf.load(path)
    except Exception as error:  # yaml raises its own family, OmegaConf another, the codec a third
        raise ConfigError(f"Configuration {path} is not readable as YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"Configuration {path}: expected sections like `model:`, found {type(content).__name__}")
    base = content.pop("base", None)
    if base is None:
        return content
    merged = OmegaConf.merge(_with_bases(path.parent / str(base), (*seen, path)), content)
    return merged  # type: ignore[return-value]  # two dictionaries merge into a dictionary


def _read_overrides(overrides: Sequence[str]) -> DictConfig:
    for item in overrides:
        if "=" not in item:
            raise ConfigError(f"Override {item!r}: expected section.key=value, for example run.inference_steps=10")
    # Nothing after the sign means an empty text, not no value.
    return OmegaConf.from_dotlist([f"{item}''" if item.endswith("=") else item for item in overrides])
