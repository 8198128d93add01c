"""Locations of the files that configurations name."""

from pathlib import Path

from latentsync.checkpoints import registry as checkpoints
from latentsync.checkpoints.folders import default_root, search_folders
from latentsync.errors import ConfigError
from latentsync.runtime.advice import fetch_command
from latentsync.runtime.resources import REPOSITORY


def find_file(name: str, key: str) -> Path:
    """A file or folder that a configuration names.

    Args:
        name: its path, relative to the current folder or to the package's own files; one below ``checkpoints`` is also
            searched for in the standard checkpoint folders.
        key: of the configuration, for the message.

    Raises:
        ConfigError: it does not exist.
    """
    given = Path(name).expanduser()
    candidates = [given, REPOSITORY / given]
    is_checkpoint = given.parts[:1] == ("checkpoints",)
    if is_checkpoint:
        candidates += [folder / given.relative_to("checkpoints") for folder in search_folders()]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    advice = f"; to fetch published weights: {fetch_command('train')}" if is_checkpoint else ""
    raise ConfigError(f"{key}: {name} does not exist, neither in the current folder nor in {REPOSITORY}{advice}")


def resolve_weights(name: str, published: str, key: str) -> Path:
    """The named file, or where none is named the published one, which must have been fetched.

    Raises:
        ConfigError: the named file does not exist.
        CheckpointError: the published file is not there; the message says how to get it.
    """
    return find_file(name, key) if name else checkpoints.resolve(published, default_root())
