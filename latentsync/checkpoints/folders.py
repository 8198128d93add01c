"""Checkpoint folders: where weights are searched for, and where downloads go.

Nothing here contacts the network.
"""

import os
from pathlib import Path

from latentsync.runtime.resources import IS_CHECKOUT, REPOSITORY

_NAME = "checkpoints"


def default_root() -> Path:
    """The folder that downloads go to; given as `root` to functions of this package, it stands for `search_folders`.

    ``$LATENTSYNC_HOME/checkpoints`` if that variable is set, else ``checkpoints`` of the checkout if it is writable,
    else ``latentsync/checkpoints`` below the user's data folder (``$XDG_DATA_HOME`` or ``~/.local/share``).
    """
    home = os.environ.get("LATENTSYNC_HOME")
    if home:
        return Path(home).expanduser() / _NAME
    if IS_CHECKOUT and os.access(REPOSITORY, os.W_OK):
        return REPOSITORY / _NAME
    return _user_folder()


def search_folders(root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Folders in which weights are searched for, in this order.

    Args:
        root: a folder of the caller's choice, which is then the only one. None and `default_root()` mean the standard
            folders: ``$LATENTSYNC_HOME/checkpoints`` and ``$LATENTSYNC_HOME`` itself, the user's data folder, and the
            checkout's or the installed wheel's own ``checkpoints``.
    """
    if root is not None and Path(root).absolute() != default_root().absolute():
        return (Path(root),)
    home = os.environ.get("LATENTSYNC_HOME")
    own = [Path(home).expanduser() / _NAME, Path(home).expanduser()] if home else []
    return (*own, _user_folder(), REPOSITORY / _NAME)


def _user_folder() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "latentsync" / _NAME
