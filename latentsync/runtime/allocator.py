"""Keeps freed pictures from piling up in the C library's heaps."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable

# Parameters of mallopt, from malloc.h, and their value: more than any block of a network at 512 pixels.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**30
_OLD_LIMIT = 2**25  # the most that an older glibc accepts


def release_freed_memory() -> None:
    """Give freed heap pages back to the system (glibc only, elsewhere nothing).

    Pictures pass from thread to thread, and glibc keeps what a thread frees for that thread alone: without this the
    heaps fragment and grow for minutes.
    """
    _trim()(0)


def keep_large_blocks() -> None:
    """Have the C library reuse large blocks instead of returning each to the system (glibc only, elsewhere nothing).

    Every page of a returned block has to be mapped and cleared again: on a CPU, a tenth of the networks' time.
    `release_freed_memory` still returns what is free.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    if not library.mallopt(_MMAP_THRESHOLD, _LARGE):
        library.mallopt(_MMAP_THRESHOLD, _OLD_LIMIT)
    library.mallopt(_TRIM_THRESHOLD, _LARGE)


@functools.cache
def _trim() -> Callable[[int], int]:
    if platform.libc_ver()[0] != "glibc":
        return lambda keep: 0
    trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    return trim
