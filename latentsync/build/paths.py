"""Where the files lie that configurations name."""

from pathlib import Path

from latentsync.checkpoints import registry as checkpoints
from latentsync.errors import ConfigError
from latentsync.runtime.resources import REPOSITORY


def find_file(name: str, key: str) -> Path:
    """A file or folder that a configuration names: from where the user stands, else from the repository.

    Args:
        name: its path.
        key: of the configuration, for the message.

    Raises:
        ConfigError: it is at neither location.
    """
    given = Path(name).expanduser()
    for candidate in (given, REPOSITORY / given):
        if candidate.exists():
            return candidate
    advice = "; published weights are fetched by ./setup_env.sh --weights" if "checkpoints" in given.parts else ""
    raise ConfigError(f"{key}: {name} does not exist, neither here nor in {REPOSITORY}{advice}")


def resolve_weights(name: str, published: str, key: str) -> Path:
    """The named file, or where none is named the published one, which must have been fetched.

    Raises:
        ConfigError: the named file does not exist.
        CheckpointError: the published file is not there; the message says how to get it.
    """
    return find_file(name, key) if name else checkpoints.resolve(published, REPOSITORY / "checkpoints")
