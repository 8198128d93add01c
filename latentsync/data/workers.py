"""Start methods for clip-reading worker processes."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Literal

from latentsync.errors import DataError

StartMethod = Literal["forkserver", "spawn", "fork"]

# Imported once by the forkserver; otherwise each worker takes seconds to start.
_PRELOADED = ["latentsync.data.unet_dataset", "latentsync.data.syncnet_dataset", "latentsync.data.whole_clips"]


def worker_context(start_method: StartMethod) -> BaseContext:
    """Return the multiprocessing context for workers.

    Args:
        start_method: "forkserver" and "spawn" are safe with CUDA; spawned workers that are stopped while they send a
            batch may abort with a message. "fork" is not safe with threads.
    """
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    return context


@contextmanager
def explain_worker_exit() -> Iterator[None]:
    """Re-raise torch's error about a killed worker as a DataError with advice.

    Raises:
        DataError: a worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise DataError(
            f"A data worker was killed ({error}), most likely because memory ran out: use fewer workers, or give the "
            "machine or container more memory and a larger /dev/shm."
        ) from error
