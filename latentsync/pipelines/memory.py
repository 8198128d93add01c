"""Keeps freed pictures from piling up in the C library's heaps."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable


def release_freed_memory() -> None:
    """Give freed heap pages back to the system (glibc only, elsewhere nothing).

    Pictures pass from thread to thread, and glibc keeps what a thread frees for that thread alone: without this the
    heaps fragment and grow for minutes.
    """
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    if platform.libc_ver()[0] != "glibc":
        return lambda keep: 0
    trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    return trim
