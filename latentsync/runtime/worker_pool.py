"""Many calls of one function in as many processes as there are cores to use."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_THREADS_OF_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_in_processes(
    function: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], workers: int
) -> Generator[Result, None, None]:
    """Call ``function(*job)`` for every job, in this process if ``workers`` is 1 or less.

    Args:
        function: of a module, so that other processes find it.
        jobs: taken a few ahead only, so that what they are may depend on the time.
        workers: processes, with one thread each.

    Yields:
        What the calls returned, as they end. What they raise ends all.
    """
    if workers <= 1:
        for job in jobs:
            yield function(*job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    running: set[Future[Result]] = set()
    try:
        for job in jobs:
            with _one_thread_each():  # processes start when there is something to do
                running.add(pool.submit(function, *job))
            if len(running) >= 2 * workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile give numpy's libraries one thread.

    Else each would start one for every core, and these wait for each other more than they work.
    """
    before = {name: os.environ.get(name) for name in _THREADS_OF_LIBRARIES}
    os.environ.update(dict.fromkeys(_THREADS_OF_LIBRARIES, "1"))
    try:
        yield
    finally:
        for name in _THREADS_OF_LIBRARIES:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _finished(running: set[Future[Result]]) -> list[Result]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    running -= done
    return [future.result() for future in done]
