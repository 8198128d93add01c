"""Runs in two processes: the same figures as in one, and nobody waits for ever."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from latentsync.training.loop.curves import read_curves
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, options

PROGRAM = """
import json, sys
from pathlib import Path
from typing import Any
import torch
from latentsync.errors import LatentSyncError
from latentsync.training.loop.processes import shutdown_distributed, current_shard
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, kill_at, options

shard = current_shard()

def train(run, ranks=(), frozen=False, unused=False, **wanted):
    mine = dict(ranks).get(str(shard.rank), {})
    source = LineSource(24, 2, shard)
    source.short_by = mine.get("short_by", 0)
    source.reasons = {f"clip{shard.rank}.mp4": "no face"}
    source.before_batch = kill_at(mine.get("kill_at"))
    task = LineTask(poison={(number, shard.rank) for number in mine.get("poison", [])}, rank=shard.rank)
    task.network[0].requires_grad_(not frozen)
    if unused:
        task.network.register_parameter("unused", torch.nn.Parameter(torch.zeros(3)))
    try:
        result = Trainer(task, source, options(run, **wanted)).run()
        return [result.steps, result.ended_by, result.skipped, result.problems]
    except LatentSyncError as error:
        return f"{type(error).__name__} {error}"

print(json.dumps([train(Path(sys.argv[1]) / name, **wanted) for name, wanted in json.loads(sys.argv[2])]))
shutdown_distributed()
"""

LIKE_ONE = {"max_train_steps": 12, "validation_steps": 6, "ema_decay": 0.9}
FROZEN = {"max_train_steps": 10, "frozen": True}
# One pair of processes trains them all: starting takes longer than training.
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("one batch", LIKE_ONE),
    ("two batches", {**LIKE_ONE, "gradient_accumulation_steps": 2}),
    ("whole", FROZEN),
    ("parts", {**FROZEN, "ranks": {"1": {"kill_at": 5}}}),
    ("parts", FROZEN),
    ("bad step", {"max_train_steps": 8, "ranks": {"1": {"poison": [1], "short_by": 2}}}),
    ("in the way", {"max_train_steps": 4}),
    ("unused", {"max_train_steps": 4, "unused": True, "find_unused_parameters": True}),
    ("unused unasked", {"max_train_steps": 4, "unused": True}),
]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def trained(request, tmp_path_factory) -> tuple[Path, list[tuple[Any, ...]]]:
    """The folder of all runs, and what each of the two processes got from each of them."""
    if request.param == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    runs = [(name, {**wanted, "cpu": request.param == "cpu", "mixed_precision": "no"}) for name, wanted in RUNS]
    folder = tmp_path_factory.mktemp("runs")
    (folder / "in the way").mkdir()
    (folder / "in the way" / "checkpoints").write_text("a file")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder, json.dumps(runs)],
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        told = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), told
    return folder, list(zip(*(json.loads(stdout) for stdout, _ in told)))


def metrics(run: Path, kind: str) -> dict[int, dict[str, float]]:
    return {line["step"]: line[kind] for line in read_curves(run / "curves.jsonl") if kind in line}


def assert_close(first: dict, second: dict) -> None:
    assert first.keys() == second.keys() and first
    for step in first:
        assert first[step] == pytest.approx(second[step], abs=1e-5)


@pytest.mark.parametrize(("number", "batches"), [(0, 1), (1, 2)])
def test_two_processes_train_as_one(trained, tmp_path, number, batches):
    folder, results = trained[0] / RUNS[number][0], trained[1][number]
    one = LineSource(24, batch=4 * batches)
    Trainer(LineTask(), one, options(tmp_path, **LIKE_ONE)).run()
    for kind in ("train", "validation"):
        assert_close(metrics(tmp_path, kind), metrics(folder, kind))
    assert list(results) == [[12, "steps", 0, {"clip0.mp4": "no face", "clip1.mp4": "no face"}]] * 2
    assert json.loads((folder / "bad_clips.json").read_text()) == results[0][3]


def test_two_processes_resume_what_they_saved(trained):
    folder, results = trained
    # One process got the signal, and both ended.
    assert [result[:2] for result in results[3]] == [[6, "signal"]] * 2
    files = [folder / run / "checkpoints" / "step_00000010" / "line.pt" for run in ("whole", "parts")]
    whole, parts = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    # On GPUs the last bits of a norm depend on where DDP's buckets lie, which it settles after its first step.
    exact = whole["3.weight"].device.type == "cpu"
    torch.testing.assert_close(whole, parts, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
    assert_close(metrics(folder / "whole", "train"), metrics(folder / "parts", "train"))


def test_a_bad_step_or_a_short_epoch_of_one_holds_nobody_up(trained):
    assert [result[:3] for result in trained[1][5]] == [[8, "steps", 1]] * 2


def test_a_failure_of_the_writing_process_ends_both(trained):
    assert all("TrainingError Cannot save the run" in result for result in trained[1][6])


def test_parameters_without_gradient_are_allowed_or_named(trained):
    assert [result[0] for result in trained[1][7]] == [4, 4]
    assert all("TrainingError" in result and "find_unused_parameters" in result for result in trained[1][8])
