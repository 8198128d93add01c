"""Filters known harmless lines of native libraries out of stderr; all other output passes through."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR_FD = 2
_LOCK = threading.Lock()


@contextmanager
def suppress_stderr_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Capture the process's stderr during the block, then write it out without the lines that match the pattern.

    Native code writes to the file descriptor directly, which Python's `redirect_stderr` does not intercept. The whole
    process is affected and output of other threads is delayed, so the block should take milliseconds.
    """
    with _LOCK, tempfile.TemporaryFile() as captured:
        try:
            terminal = os.dup(_STDERR_FD)
        except OSError:  # the process has no stderr
            yield
            return
        try:
            os.dup2(captured.fileno(), _STDERR_FD)
            yield
        finally:
            os.dup2(terminal, _STDERR_FD)
            captured.seek(0)
            remaining = pattern.sub(b"", captured.read())
            if remaining:
                os.write(terminal, remaining)
            os.close(terminal)
