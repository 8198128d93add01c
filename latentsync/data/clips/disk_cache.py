"""Content-addressed disk cache, safe for concurrent writers."""

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
    """Identify the current content of a file by its absolute path, size and modification time.

    Raises:
        OSError: the file does not exist.
    """
    state = os.stat(path)
    return f"{os.path.realpath(path)}\0{state.st_size}\0{state.st_mtime_ns}"


class DiskCache:
    """Arrays and records by key. Entries are written atomically; a damaged entry counts as missing.

    A cache must never abort a run: if it is not writable, one warning is logged and nothing is cached.

    Args:
        folder: created when first needed; None disables the cache.
        kind: namespace and version of the entries, such as "syncnet-mel 1"; different kinds do not share entries.
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
        """Store a numeric array under ``key``."""
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
        """Store a JSON-serializable record under ``key``."""
        self._write(key, ".json", json.dumps(record).encode())

    def _file(self, folder: Path, key: str, suffix: str) -> Path:
        digest = hashlib.sha256(f"{self.kind}\0{key}".encode(errors="surrogateescape")).hexdigest()[:40]
        # Shard by the first two characters, so that no folder gets a million entries.
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
                logger.warning("cannot write to the cache %s (%s); continuing without it", self.folder, error)
            self._has_warned = True
