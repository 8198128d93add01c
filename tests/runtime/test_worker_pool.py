"""Calls in several processes: all results, failures that end the rest, one thread for each."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.errors import MediaError
from latentsync.runtime.worker_pool import run_in_processes


def product(one: int, other: int) -> int:
    if other < 0:
        raise MediaError(f"{other} is negative")
    return one * other


def threads(_: int) -> tuple[int, int, str | None]:
    np.ones((300, 300)) @ np.ones((300, 300))
    return len(os.listdir("/proc/self/task")), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def marked(folder: Path, number: int) -> int:
    if number == 1:
        raise MediaError("number 1 fails")
    time.sleep(0.3)
    (folder / str(number)).touch()
    return number


def process_number(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_gives_its_result(workers: int) -> None:
    assert sorted(run_in_processes(product, [(number, 10) for number in range(9)], workers)) == [*range(0, 90, 10)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_ends_the_rest(workers: int) -> None:
    taken = []

    def jobs() -> Iterator[tuple[int, int]]:
        for number in range(1000):
            taken.append(number)
            yield 1, 5 - number

    with pytest.raises(MediaError, match="is negative"):
        list(run_in_processes(product, jobs(), workers))
    assert len(taken) < 50


def test_processes_have_one_thread_each_and_this_one_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    for running, torch_threads, environment in run_in_processes(threads, [(number,) for number in range(3)], 2):
        # The working thread, and one that watches over the process itself.
        assert running <= 2 and torch_threads == 1 and environment == "1"
        assert os.environ["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in os.environ


def test_nothing_goes_on_after_a_failure_or_an_early_end(tmp_path: Path) -> None:
    failing = run_in_processes(marked, [(tmp_path, number) for number in range(20)], 2)
    with pytest.raises(MediaError, match="number 1 fails"):
        list(failing)
    some = run_in_processes(marked, [(tmp_path, number) for number in range(100, 120)], 2)
    next(some)
    some.close()
    assert len(list(tmp_path.iterdir())) < 12
    assert multiprocessing.active_children() == []


def test_a_failure_of_the_jobs_themselves_is_told() -> None:
    def jobs() -> Iterator[tuple[int, int]]:
        yield 1, 2
        raise MediaError("no more jobs")

    with pytest.raises(MediaError, match="no more jobs"):
        list(run_in_processes(product, jobs(), 2))


def test_one_worker_is_this_process() -> None:
    assert set(run_in_processes(process_number, [(1,), (2,)], 1)) == {os.getpid()}
    assert os.getpid() not in set(run_in_processes(process_number, [(1,), (2,)], 2))
