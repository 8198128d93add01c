"""List the training clips of a list file or a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from latentsync.errors import DataError

PathLike = str | os.PathLike[str]


SUFFIX = ".mp4"


def list_clips(fileslist: PathLike | None = None, folder: PathLike | None = None) -> list[Path]:
    """Return the clips of a list file or, if none is given, of a folder.

    Args:
        fileslist: text file with one path per line; relative paths are relative to the folder of the list. Blank lines
            are ignored, duplicates are kept.
        folder: searched recursively for .mp4 files; hidden files, such as unfinished ones, are ignored.

    Returns:
        Absolute paths, in list order or sorted.

    Raises:
        DataError: neither was given, the given one cannot be read, or it contains no clips.
    """
    if fileslist:
        return _from_list(Path(fileslist))
    if folder:
        return _from_folder(Path(folder))
    raise DataError("No training clips: give a list file (one path per line) or a folder of .mp4 files.")


def _from_list(file: Path) -> list[Path]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read the clip list {str(file)!r} ({error.strerror}). Give a text file with one path per line."
        ) from error
    if b"\0" in content:
        raise DataError(f"The clip list {str(file)!r} is not a text file. Give a text file with one path per line.")
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    base = Path(os.path.abspath(file)).parent
    clips = [base / os.fsdecode(line.strip()) for line in lines if line.strip()]
    if not clips:
        raise DataError(f"The clip list {str(file)!r} is empty. Write the path of one .mp4 file on each line.")
    return clips


def _from_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"The clip folder {str(folder)!r} does not exist or is not a folder. Check the path.")
    clips = sorted(_walk(Path(os.path.abspath(folder))))
    if not clips:
        raise DataError(
            f"The clip folder {str(folder)!r} and its subfolders contain no {SUFFIX} file. "
            "Run the data pipeline first, or give the folder it wrote to."
        )
    return clips


def _walk(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(base) / name for name in names if name.lower().endswith(SUFFIX) and not name.startswith("."))
