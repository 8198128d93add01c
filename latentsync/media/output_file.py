"""Atomic output files: they appear under their final name only once complete."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latentsync.errors import MediaError

PathLike = str | os.PathLike[str]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


def check_output(path: PathLike, inputs: Iterable[PathLike] = (), overwrite: bool = False) -> Path:
    """Validate an output path before any work is done.

    Args:
        path: of the video to be written.
        inputs: files that must not be overwritten, even through links or relative paths.
        overwrite: whether an existing file may be replaced.

    Returns:
        The absolute path.

    Raises:
        MediaError: the path is an input, a folder, has an unknown extension, already exists, or its folder is missing
            or not writable.
    """
    file = Path(os.path.abspath(path))
    if file.is_dir():
        raise MediaError(f"Cannot write {str(file)!r}: it is a folder. Give a file name.")
    if file.suffix.lower() not in VIDEO_SUFFIXES:
        raise MediaError(f"Cannot write {str(file)!r}: use one of the extensions {', '.join(VIDEO_SUFFIXES)}.")
    if any(_same_file(file, Path(given)) for given in inputs):
        raise MediaError(f"Refusing to write {str(file)!r}: it is one of the inputs. Give another output name.")
    if not file.parent.is_dir():
        raise MediaError(f"Cannot write {str(file)!r}: its folder does not exist. Create it first.")
    if os.path.lexists(file) and not overwrite:
        raise MediaError(f"{str(file)!r} exists already. Give another name, remove it, or allow --overwrite.")
    _try_to_create_in(file)
    return file


def partial_path(path: Path) -> Path:
    """Create an empty file with a unique temporary name next to ``path`` and return its path.

    Raises:
        MediaError: the folder is not writable.
    """
    # Forty characters are at most 160 bytes, which keeps the temporary name below the 255-byte limit.
    partial = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(6)}.partial{path.suffix}")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise MediaError(
            f"Cannot write into {str(path.parent)!r} ({error.strerror}). Choose a folder you may write to."
        ) from error
    return partial


def publish(partial: Path, path: Path, overwrite: bool) -> None:
    """Atomically rename a complete file to its final name.

    Raises:
        MediaError: the name was taken in the meantime and ``overwrite`` is off, or the rename fails.
    """
    try:
        if not overwrite and os.path.lexists(path):
            raise MediaError(f"{str(path)!r} was created in the meantime; it is not overwritten. Give another name.")
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(f"Cannot rename the finished file to {str(path)!r} ({error.strerror}).") from error


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary file next to ``path``, renamed to it if the block succeeds and removed otherwise.

    Raises:
        MediaError: the folder is not writable, the disk is full, or the name is taken and ``overwrite`` is off.
    """
    partial = partial_path(path)
    try:
        yield partial
        publish(partial, path, overwrite)
    except OSError as error:
        raise MediaError(f"Cannot write {str(path)!r} ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _same_file(first: Path, second: Path) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return first.exists() and second.exists() and os.path.samefile(first, second)


def _try_to_create_in(file: Path) -> None:
    # Checking permissions is not enough: os.access is wrong on read-only file systems and for root.
    partial_path(file).unlink()
