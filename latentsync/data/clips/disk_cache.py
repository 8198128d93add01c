"""Results kept on disk under a key made from the content they belong to, safe for many writers at once."""

import hashlib
import io
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Name a file's present content by its absolute path, size and time of change.

    Files of one name in different folders differ, and so does a file that was written anew.

    Raises:
        OSError: there is no such file.
    """
    state = os.stat(path)
    return f"{os.path.realpath(path)}\0{state.st_size}\0{state.st_mtime_ns}"


class DiskCache:
    """Arrays and records by key. Entries appear whole or not at all; a damaged one counts as missing.

    A cache must never stop a run: where it cannot be written, one warning is logged and results are made anew.

    Args:
        folder: made when first needed; None keeps nothing.
        kind: what is kept and how it is made, such as "syncnet-mel 1": another kind never meets these entries.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, kind: str) -> None:
        self.folder = None if folder is None else Path(os.path.abspath(folder))
        self.kind = kind
        self._has_warned = False

    def load_array(self, key: str) -> np.ndarray | None:
        """The array stored under ``key``, or None."""
        data = self._read(key, ".npy")
        try:
            return None if data is None else np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError):
            return None

    def store_array(self, key: str, array: np.ndarray) -> None:
        """Keep an array of numbers."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self._write(key, ".npy", buffer.getvalue())

    def load_record(self, key: str) -> dict[str, Any] | None:
        """The record stored under ``key``, or None."""
        data = self._read(key, ".json")
        try:
            record = None if data is None else json.loads(data)
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def store_record(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record of what JSON can hold."""
        self._write(key, ".json", json.dumps(record).encode())

    def _file(self, folder: Path, key: str, suffix: str) -> Path:
        digest = hashlib.sha256(f"{self.kind}\0{key}".encode(errors="surrogateescape")).hexdigest()[:40]
        # Two letters of the name as a folder, so that no folder gets a million entries.
        return folder / digest[:2] / f"{digest}{suffix}"

    def _read(self, key: str, suffix: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            return self._file(self.folder, key, suffix).read_bytes()
        except OSError:
            return None

    def _write(self, key: str, suffix: str, data: bytes) -> None:
        if self.folder is None:
            return
        file = self._file(self.folder, key, suffix)
        partial = file.with_name(f".{file.name}.{secrets.token_hex(6)}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(data)
                os.replace(partial, file)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            if not self._has_warned:
                logger.warning("cannot write into the cache %s (%s); going on without it", self.folder, error)
            self._has_warned = True
