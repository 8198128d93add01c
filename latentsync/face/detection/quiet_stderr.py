"""Keeps known, harmless lines of native libraries off the terminal; whatever else they say comes through."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def suppress_stderr_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back the process's standard error during the block and then write it, less what the pattern matches.

    Native code writes to the file descriptor itself, where Python's `redirect_stderr` does not reach. The whole
    process is affected, so the block should take milliseconds; other threads' output waits that long.
    """
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as held:
        try:
            terminal = os.dup(_STDERR)
        except OSError:  # the program runs without a standard error
            yield
            return
        try:
            os.dup2(held.fileno(), _STDERR)
            yield
        finally:
            os.dup2(terminal, _STDERR)
            held.seek(0)
            rest = pattern.sub(b"", held.read())
            if rest:
                os.write(terminal, rest)
            os.close(terminal)
