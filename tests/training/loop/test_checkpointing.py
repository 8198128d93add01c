"""States of a run on a disk that is full, damaged or killed while writing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentsync.errors import CheckpointError, TrainingError
from latentsync.training.loop.checkpointing import FORMAT, STATE_FILE, RunCheckpoints, read_state
from latentsync.training.loop.options import CheckpointOptions
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, options


def checkpoints(folder: Path, **changes) -> RunCheckpoints:
    return RunCheckpoints(folder / "checkpoints", CheckpointOptions(**changes))


def write_tensor(size: int = 10):
    def write(folder: Path) -> Path:
        torch.save({"format": FORMAT, "weight": torch.arange(size)}, folder / STATE_FILE)
        return folder / STATE_FILE

    return write


def train(run: Path, **changes):
    return Trainer(LineTask(), LineSource(), options(run, **changes)).run()


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"), [(2, 0, [4, 5]), (1, 2, [2, 4, 5]), (-1, 0, [1, 2, 3, 4, 5])]
)
def test_the_newest_and_the_round_ones_are_kept(tmp_path, keep_last, keep_every, kept):
    run = checkpoints(tmp_path, keep_last=keep_last, keep_every=keep_every)
    for step in range(1, 6):
        assert run.save(step, 0, write_tensor()) == run.path(step) / STATE_FILE
    assert run.steps() == kept
    assert sorted(entry.name for entry in run.folder.iterdir()) == [f"step_{step:08d}" for step in kept]


def test_what_is_read_is_what_was_written(tmp_path):
    run = checkpoints(tmp_path)
    run.save(7, 0, write_tensor(5))
    assert read_state(run.path(7))["weight"].tolist() == [0, 1, 2, 3, 4]
    assert run.newest() == run.newest_readable() == run.path(7)


def test_a_state_that_will_not_fit_is_refused_before_it_is_begun(tmp_path):
    run = checkpoints(tmp_path)
    run.save(1, 0, write_tensor())
    with pytest.raises(TrainingError, match=r"needs about 1,000,000,000,000.0 MB, [\d,.]+ MB are free.*step_00000001"):
        run.save(2, 10**18, write_tensor())
    assert run.steps() == [1] and len(list(run.folder.iterdir())) == 1


def test_whatever_fails_in_writing_leaves_nothing_half_done(tmp_path):
    run = checkpoints(tmp_path)
    run.save(1, 0, write_tensor())

    def interrupted(folder: Path) -> Path:
        (folder / STATE_FILE).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.save(2, 0, interrupted)
    assert [entry.name for entry in run.folder.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_state_is_set_aside_and_the_one_before_taken(tmp_path, damage, caplog):
    run = checkpoints(tmp_path)
    run.save(1, 0, write_tensor(1000)), run.save(2, 0, write_tensor(1000))
    file = run.path(2) / STATE_FILE
    if damage == "other":
        torch.save([1, 2], file)
    else:
        file.write_bytes({"cut": file.read_bytes()[:5000], "empty": b"", "text": b"no state"}[damage])
    assert run.newest_readable() == run.path(1)
    assert "step_00000002" in caplog.text and run.steps() == [1]
    assert list(run.folder.glob("damaged_step_00000002_*/state.pt"))
    (run.path(1) / STATE_FILE).write_bytes(b"")
    with pytest.raises(CheckpointError, match="None of the 1 states"):
        run.newest_readable()


def test_states_run_no_code_when_read(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    run = checkpoints(tmp_path)
    run.path(1).mkdir(parents=True)
    torch.save({"format": FORMAT, "bad": Bad()}, run.path(1) / STATE_FILE)
    with pytest.raises(CheckpointError):
        run.newest_readable()
    assert not (tmp_path / "made").exists()


def test_a_run_goes_on_from_before_the_damage_and_ends_the_same(tmp_path):
    whole = train(tmp_path / "whole", max_train_steps=8, save_ckpt_steps=3)
    train(tmp_path / "hurt", max_train_steps=6, save_ckpt_steps=3)
    file = tmp_path / "hurt" / "checkpoints" / "step_00000006" / STATE_FILE
    file.write_bytes(file.read_bytes()[:-100])
    hurt = train(tmp_path / "hurt", max_train_steps=8, save_ckpt_steps=3)
    first, second = (torch.load(result.weights, weights_only=True)["state_dict"] for result in (whole, hurt))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "step_00000006" in {entry.name for entry in hurt.checkpoint.parent.iterdir()}


FULL_DISK = """
import resource, sys
from pathlib import Path
from latentsync.errors import TrainingError
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, options

def limited(run, size):
    def limit(batch):
        if batch == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    source = LineSource()
    source.before_batch = limit
    try:
        Trainer(LineTask(), source, options(run, max_train_steps=9, save_ckpt_steps=4)).run()
    except TrainingError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(error)

for size in (0, 1000, 12000):
    limited(Path(sys.argv[1]) / str(size), size)
"""


def test_a_disk_that_fills_up_ends_the_run_and_spares_the_last_state(tmp_path):
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    messages = ended.stdout.splitlines()
    assert len(messages) == 3
    for message, run in zip(messages, (tmp_path / "0", tmp_path / "1000", tmp_path / "12000")):
        assert "Cannot save the run" in message and "MB are free" in message
        assert str(run / "checkpoints" / "step_00000004") in message
        assert [entry.name for entry in (run / "checkpoints").iterdir()] == ["step_00000004"]
        assert read_state(run / "checkpoints" / "step_00000004")["step"] == 4
        assert train(run, max_train_steps=9).steps == 9


KILLED = """
import os, signal, sys
from pathlib import Path
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, kill_at, options

run = Path(sys.argv[1])
ids = open(run / "ids.txt", "a", buffering=1)
source = LineSource(36, taken=lambda epoch, taken: ids.write(" ".join(map(str, taken)) + "\\n"))
source.before_batch = kill_at(int(sys.argv[2]), signal.SIGKILL)
Trainer(LineTask(), source, options(run, max_train_epochs=1, save_ckpt_steps=2)).run()
"""


def test_a_killed_run_goes_on_and_covers_the_epoch_once(tmp_path):
    kept: list[int] = []
    for number, saved in ((5, 4), (7, 6)):
        program = [sys.executable, "-c", KILLED, tmp_path, str(number)]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert checkpoints(tmp_path).steps()[-1] == saved
        # What came after the last state is lost, and drawn again.
        ids = [int(number) for number in (tmp_path / "ids.txt").read_text().split()]
        kept += ids[: 4 * saved - len(kept)]
        (tmp_path / "ids.txt").unlink()
    source = LineSource(36, taken=lambda epoch, ids: kept.extend(ids))
    goal = Trainer(LineTask(), source, options(tmp_path, max_train_epochs=1)).run()
    assert sorted(kept) == list(range(36))
    whole = Trainer(LineTask(), LineSource(36), options(tmp_path / "whole", max_train_epochs=1)).run()
    first, second = (torch.load(result.weights, weights_only=True)["state_dict"] for result in (whole, goal))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_leftovers_of_a_save_that_was_killed_are_removed(tmp_path):
    train(tmp_path, max_train_steps=2)
    left = tmp_path / "checkpoints" / ".unfinished-step_00000003-ab"
    left.mkdir()
    (left / STATE_FILE).write_bytes(b"half")
    assert train(tmp_path, max_train_steps=3).steps == 3
    assert not left.exists()
