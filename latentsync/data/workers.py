"""How processes that read clips are started."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Literal

from latentsync.errors import DataError

StartMethod = Literal["forkserver", "spawn", "fork"]

# Imported once by the server that the workers are forked from: else each one takes seconds to start.
_PRELOADED = ["latentsync.data.unet_dataset", "latentsync.data.syncnet_dataset", "latentsync.data.whole_clips"]


def worker_context(start_method: StartMethod) -> BaseContext:
    """The context that workers are started in.

    Args:
        start_method: "forkserver" and "spawn" are safe beside CUDA; spawned workers that are ended while they hand over
            a batch may abort with a message. "fork" is not safe beside threads.
    """
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    return context


@contextmanager
def explain_worker_exit() -> Iterator[None]:
    """Turn torch's complaint about a worker that is gone into advice.

    Raises:
        DataError: a worker was ended from outside.
    """
    try:
        yield
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise DataError(
            f"A process that reads clips was ended from outside ({error}). Mostly memory ran out: use fewer workers, "
            "or give the machine or container more memory and a larger /dev/shm."
        ) from error
