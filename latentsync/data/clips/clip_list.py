"""Which clips there are: a list file or a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from latentsync.errors import DataError

PathLike = str | os.PathLike[str]


SUFFIX = ".mp4"


def list_clips(fileslist: PathLike | None = None, folder: PathLike | None = None) -> list[Path]:
    """Return the clips of a list file or, where none is given, of a folder.

    Args:
        fileslist: text file with one path a line; relative ones start at the list's own folder. Blank lines are left
            out, a path given twice counts twice.
        folder: searched with all its subfolders for .mp4 files; hidden ones, such as unfinished files, are left out.

    Returns:
        Absolute paths: in the order of the list, or sorted.

    Raises:
        DataError: neither was given, the given one cannot be read, or it holds no clip.
    """
    if fileslist:
        return _from_list(Path(fileslist))
    if folder:
        return _from_folder(Path(folder))
    raise DataError("No training clips are given: name a list file (one path a line) or a folder of .mp4 files.")


def _from_list(file: Path) -> list[Path]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"The list of clips {str(file)!r} cannot be read ({error.strerror}). Give a text file with one path a line."
        ) from error
    if b"\0" in content:
        raise DataError(f"The list of clips {str(file)!r} is no text file. Give a text file with one path a line.")
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    base = Path(os.path.abspath(file)).parent
    clips = [base / os.fsdecode(line.strip()) for line in lines if line.strip()]
    if not clips:
        raise DataError(f"The list of clips {str(file)!r} is empty. Write the path of one .mp4 file on each line.")
    return clips


def _from_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"The folder of clips {str(folder)!r} does not exist or is no folder. Check the path.")
    clips = sorted(_walk(Path(os.path.abspath(folder))))
    if not clips:
        raise DataError(
            f"The folder of clips {str(folder)!r} and its subfolders hold no {SUFFIX} file. "
            "Run the data pipeline first, or give the folder it wrote to."
        )
    return clips


def _walk(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(base) / name for name in names if name.lower().endswith(SUFFIX) and not name.startswith("."))
