"""Whether a run may be resumed with the present configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentsync.errors import ConfigError


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; other than plain values become text, so that they compare."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: _plain(value)})
    return flat


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


@dataclass(frozen=True)
class Tolerance:
    """Which settings may differ.

    Attributes:
        mutable_keys: keys, or sections ("run" for "run.seed").
        defaults: flat; values of settings that did not exist yet when the run was saved.
    """

    mutable_keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


def check_same(saved: Mapping[str, Any], present: Mapping[str, Any], tolerance: Tolerance, folder: str) -> None:
    """Refuse to resume with settings that change what is learned.

    Args:
        saved: flat settings the run was saved with.
        present: flat settings of now.
        tolerance: which may differ.
        folder: of the run, for the message.

    Raises:
        ConfigError: others differ; all are listed.
    """
    absent = "(not set)"
    different = []
    for key in sorted({*saved, *present}):
        was, now = saved.get(key, tolerance.defaults.get(key, absent)), present.get(key, absent)
        if was != now and not _is_mutable(key, tolerance.mutable_keys):
            different.append(f"  {key}: was {was!r}, is {now!r}")
    if different:
        raise ConfigError(
            f"The run in {folder!r} was made with other settings:\n" + "\n".join(different) + "\n"
            "Restore them to resume, or give another run folder to start a new run."
        )


def _is_mutable(key: str, mutable_keys: tuple[str, ...]) -> bool:
    """Whether a dotted key, or a section that holds it, is in the list."""
    return any(key == name or key.startswith(f"{name}.") for name in mutable_keys)
