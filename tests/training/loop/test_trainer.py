"""Whole runs of the training loop in one process."""

import json
import logging
import math
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latentsync.errors import CheckpointError, ConfigError, TrainingError
from latentsync.training.loop.checkpointing import read_state
from latentsync.training.loop.curves import read_curves
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, kill_at, options

TIMING = ("seconds", "samples_per_second")


def curves(run: Path) -> list[dict]:
    return [{key: line[key] for key in line if key not in TIMING} for line in read_curves(run / "curves.jsonl")]


def train(run: Path, task: LineTask | None = None, source: LineSource | None = None, **changes):
    return Trainer(task or LineTask(), source or LineSource(), options(run, **changes)).run()


def assert_equal_states(first, second, path="state"):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first.keys() - {"seconds", "step_seconds", "pending"}:
            assert_equal_states(first[key], second[key], f"{path}.{key}")
    elif isinstance(first, list):
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_equal_states(*pair, f"{path}[{number}]")
    else:
        assert first == second, path


def test_a_run_learns_and_leaves_everything_it_promises(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = LineSource()
    source.reasons = {"bad.mp4": "no sound"}
    result = train(tmp_path, source=source, max_train_steps=40, validation_steps=20, lr=2e-2)

    lines = curves(tmp_path)
    totals = [line["train"]["total"] for line in lines if "train" in line]
    assert len(totals) == 40 and sum(totals[-6:]) < 0.5 * sum(totals[:6])
    assert [line["step"] for line in lines if "validation" in line] == [20, 40]
    assert set(lines[-1]["validation"]) == {"squares"}
    assert result.steps == 40 and result.ended_by == "steps" and result.skipped == 0
    assert result.checkpoint == tmp_path / "checkpoints" / "step_00000040"
    assert torch.load(result.weights, weights_only=True)["global_step"] == 40
    assert result.problems == json.loads((tmp_path / "bad_clips.json").read_text()) == {"bad.mp4": "no sound"}
    assert (tmp_path / "charts" / "line.png").stat().st_size > 1000
    assert (tmp_path / "samples" / "line_00000040.txt").is_file()
    assert list((tmp_path / "tensorboard").iterdir())
    assert result.steps_per_second > 0 and result.peak_cuda_bytes == 0
    for told in (result.weights, tmp_path / "charts" / "line.png", tmp_path / "bad_clips.json", "bad.mp4: no sound"):
        assert str(told) in caplog.text


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("log_steps", [1, 4])
def test_ten_and_ten_steps_are_twenty(tmp_path, accumulation, log_steps):
    same = {
        "gradient_accumulation_steps": accumulation,
        "ema_decay": 0.99,
        "log_steps": log_steps,
        "lr_warmup_steps": 3,
    }
    same |= {"max_train_steps": 20, "lr_scheduler": "cosine", "validation_steps": 4}
    whole = train(tmp_path / "whole", LineTask(dropout=0.2), LineSource(28), **same)

    source = LineSource(28)
    source.before_batch = kill_at(9 * accumulation)
    first = train(tmp_path / "parts", LineTask(dropout=0.2), source, **same)
    assert first.ended_by == "signal" and first.steps < 20
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    second = train(tmp_path / "parts", LineTask(seed=1, dropout=0.2), LineSource(28), **same)

    assert second.steps == 20
    assert_equal_states(read_state(whole.checkpoint), read_state(second.checkpoint))
    assert curves(tmp_path / "whole") == curves(tmp_path / "parts")


def test_numbers_drawn_in_a_loss_go_on_where_they_stopped(tmp_path):
    whole, first, second = LineTask(), LineTask(), LineTask()
    train(tmp_path / "whole", whole, max_train_steps=12, validation_steps=2)
    train(tmp_path / "parts", first, max_train_steps=6)
    train(tmp_path / "parts", second, max_train_steps=12)
    assert first.noise + second.noise == whole.noise


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    train(tmp_path, max_train_steps=6)
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"step": 7, "epoch": 1, "train": {"total": 9}}\n{"step": 8, "epo')
    train(tmp_path, max_train_steps=9)
    assert [line["step"] for line in curves(tmp_path)] == list(range(1, 10))
    assert all(line["train"]["total"] < 9 for line in curves(tmp_path))


def test_a_finished_run_started_again_changes_nothing(tmp_path):
    first = train(tmp_path, max_train_steps=6, validation_steps=4)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".pt", ".jsonl")}
    again = train(tmp_path, max_train_steps=6, validation_steps=4)
    assert again.steps == 6 and again.weights == first.weights
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".pt", ".jsonl")}


def test_every_sample_of_an_epoch_is_seen_once_and_epochs_end_the_run(tmp_path):
    seen: dict[int, list[int]] = {}
    source = LineSource(28, taken=lambda epoch, ids: seen.setdefault(epoch, []).extend(ids))
    result = train(tmp_path, source=source, max_train_epochs=2, gradient_accumulation_steps=2)
    assert result.ended_by == "epochs" and result.steps == 8  # 7 batches: 2 + 2 + 2 + 1
    assert [sorted(ids) for ids in seen.values()] == [list(range(28))] * 2


def test_accumulated_batches_are_one_large_batch(tmp_path):
    large, parts = LineTask(), LineTask()
    train(tmp_path / "large", large, LineSource(24, batch=8), max_train_steps=6)
    train(tmp_path / "parts", parts, LineSource(24, batch=4), max_train_steps=6, gradient_accumulation_steps=2)
    torch.testing.assert_close(large.network.state_dict(), parts.network.state_dict(), rtol=1e-4, atol=1e-5)


def test_only_parameters_with_gradient_move_and_are_averaged(tmp_path):
    task = LineTask()
    task.network[0].requires_grad_(False)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    result = train(tmp_path, task, max_train_steps=4, ema_decay=0.9)
    after = task.network.state_dict()
    assert torch.equal(before["0.weight"], after["0.weight"]) and not torch.equal(before["3.weight"], after["3.weight"])
    assert set(read_state(result.checkpoint)["ema"]["averages"]) == {"3.weight", "3.bias"}


def test_averaged_weights_are_validated_and_exported_but_not_trained(tmp_path):
    plain, averaged = LineTask(), LineTask()
    train(tmp_path / "plain", plain, max_train_steps=8)
    result = train(tmp_path / "ema", averaged, max_train_steps=8, validation_steps=8, ema_decay=0.999, ema_on_cpu=True)
    assert torch.equal(plain.network[0].weight, averaged.network[0].weight)
    exported = torch.load(result.weights, weights_only=True)["state_dict"]
    assert torch.equal(exported["0.weight"], averaged.seen_weights[-1])
    assert not torch.allclose(exported["0.weight"], averaged.network[0].weight)


def test_a_time_budget_ends_the_run_and_is_not_given_twice(tmp_path):
    first = train(tmp_path, max_train_seconds=0.3, lr_scheduler="linear")
    lrs = [line["lr"] for line in curves(tmp_path)]
    assert first.ended_by == "time" and first.steps > 1
    assert lrs == sorted(lrs, reverse=True) and lrs[-1] < lrs[0]
    again = train(tmp_path, max_train_seconds=0.3, lr_scheduler="linear")
    assert again.steps == first.steps


@pytest.mark.parametrize(("seconds", "kept"), [(1e-9, [1, 2, 3, 4]), (3600.0, [4])])
def test_a_run_can_be_saved_by_time(tmp_path, seconds, kept):
    train(tmp_path, max_train_steps=4, save_ckpt_seconds=seconds, keep_last=-1)
    assert sorted(int(entry.name[5:]) for entry in (tmp_path / "checkpoints").iterdir()) == kept


def test_a_task_with_a_schedule_is_given_the_progress(tmp_path):
    class Scheduled(LineTask):
        def __init__(self):
            super().__init__()
            self.progress: list[float] = []

        def set_progress(self, fraction_done: float) -> None:
            self.progress.append(fraction_done)

    task = Scheduled()
    train(tmp_path, task, max_train_steps=4)
    assert task.progress == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_and_saves(tmp_path, number, caplog):
    source = LineSource()
    source.before_batch = kill_at(4, number)
    handler = signal.getsignal(number)
    with caplog.at_level(logging.WARNING):
        result = train(tmp_path, source=source, max_train_steps=100)
    assert result.ended_by == "signal" and result.steps == 5
    assert read_state(result.checkpoint)["step"] == 5
    assert signal.Signals(number).name in caplog.text
    assert signal.getsignal(number) is handler


def test_a_loader_that_breaks_on_the_signal_is_no_failure(tmp_path):
    def broken(batch: int) -> None:
        if batch == 3:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("worker exited unexpectedly")

    source = LineSource()
    source.before_batch = broken
    result = train(tmp_path, source=source, max_train_steps=100)
    assert result.ended_by == "signal" and result.steps == 3
    state = read_state(result.checkpoint)
    assert (state["epoch"], state["batch"]) == (0, 3)


def test_a_loader_that_breaks_by_itself_is_one(tmp_path):
    def broken(batch: int) -> None:
        if batch == 3:
            raise RuntimeError("disk gone")

    source = LineSource()
    source.before_batch = broken
    with pytest.raises(RuntimeError, match="disk gone"):
        train(tmp_path, source=source, max_train_steps=100)


def test_steps_that_are_not_finite_leave_the_weights_and_are_counted(tmp_path):
    task, without = LineTask(poison={(2, 0), (3, 0)}), LineTask()
    result = train(tmp_path / "a", task, max_train_steps=4, ema_decay=0.9)
    train(tmp_path / "b", without, max_train_steps=2, ema_decay=0.9)
    assert result.skipped == 2 and result.steps == 4
    assert torch.equal(task.network[0].weight, without.network[0].weight)
    lines = curves(tmp_path / "a")
    assert lines[-1]["skipped"] == 2 and lines[-1]["train"] == {} and lines[-1]["grad_norm"] is None
    assert all(math.isfinite(value) for line in lines for value in line["train"].values())


def test_too_many_of_them_in_a_row_end_the_run_and_spare_the_last_state(tmp_path):
    task = LineTask(poison={(number, 0) for number in range(5, 20)})
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, task, max_train_steps=20, save_ckpt_steps=5, max_skipped_in_row=4)
    message = str(caught.value)
    assert "step 9" in message and "squares" in message and "step_00000005" in message
    train(tmp_path, LineTask(), max_train_steps=10, max_skipped_in_row=4)
    assert curves(tmp_path)[-1]["step"] == 10 and curves(tmp_path)[-1]["skipped"] == 0


def test_a_gradient_that_is_not_finite_counts_too(tmp_path):
    class Root(LineTask):
        def losses(self, network, batch):
            terms = super().losses(network, batch)
            return {**terms, "total": terms["total"] + (0 * network(batch["x"])).abs().sqrt().sum()}

    result = train(tmp_path, Root(), max_train_steps=3)
    assert result.skipped == 3


def test_gradients_are_clipped_only_if_asked_and_measured_always(tmp_path):
    norms = {}
    for limit in (0.0, 0.1):
        train(tmp_path / str(limit), LineTask(), max_train_steps=1, max_grad_norm=limit, lr=1e-3)
        norms[limit] = curves(tmp_path / str(limit))[0]["grad_norm"]
        state = read_state(tmp_path / str(limit) / "checkpoints" / "step_00000001")
        # After one step AdamW's first moment is a tenth of the gradient.
        moment = torch.cat([entry["exp_avg"].flatten() for entry in state["optimizer"].values()])
        assert math.isclose(float(moment.norm()) * 10, limit or norms[0.0], rel_tol=1e-3)
    assert norms[0.0] == norms[0.1] > 0.1


def test_vectors_decay_only_if_asked(tmp_path):
    for decay_vectors in (True, False):
        task = LineTask()
        for parameter in task.network.parameters():
            nn.init.ones_(parameter)
        task.losses = lambda network, batch: {"total": 0.0 * network(batch["x"]).sum()}  # type: ignore[method-assign]
        folder = tmp_path / str(decay_vectors)
        train(folder, task, max_train_steps=1, weight_decay=1.0, lr=0.5, decay_vectors=decay_vectors)
        assert torch.allclose(task.network[0].weight, torch.tensor(0.5))
        assert torch.allclose(task.network[0].bias, torch.tensor(0.5 if decay_vectors else 1.0))


def test_settings_that_differ_are_listed_and_harmless_ones_pass(tmp_path):
    config = {"run": {"seed": 1, "lr": 1e-3}, "data": {"files": [Path("a"), "b"], "num_workers": 2}}
    train(tmp_path, max_train_steps=2, config=config)
    other = {"run": {"seed": 2, "lr": 1e-3}, "data": {"files": ["a", "b"], "num_workers": 4}}
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, max_train_steps=4, config=other, mutable_keys=("data.num_workers",))
    assert "run.seed: was 1, is 2" in str(caught.value) and "num_workers" not in str(caught.value)
    assert "another run folder" in str(caught.value)
    result = train(tmp_path, max_train_steps=4, config=other, mutable_keys=("data.num_workers", "run"))
    assert result.steps == 4


def test_a_setting_that_did_not_exist_yet_had_its_default(tmp_path):
    train(tmp_path, max_train_steps=2, config={"run": {"seed": 1}})
    newer = {"run": {"seed": 1, "motion": 0.0}}
    with pytest.raises(ConfigError, match="run.motion: was 0.0, is 0.5"):
        train(tmp_path, max_train_steps=4, config={"run": {"seed": 1, "motion": 0.5}}, default_config=newer)
    assert train(tmp_path, max_train_steps=4, config=newer, default_config=newer).steps == 4


def test_other_data_is_refused_or_begins_with_the_next_epoch(tmp_path):
    train(tmp_path, max_train_steps=8)
    with pytest.raises(ConfigError, match="batches_per_epoch: was 6, is 7"):
        train(tmp_path, source=LineSource(28), max_train_steps=10)
    seen = []
    source = LineSource(28, taken=lambda epoch, ids: seen.append(epoch))
    train(tmp_path, source=source, max_train_steps=10, mutable_keys=("batches_per_epoch",))
    assert seen == [2, 2]


def test_resume_never_and_must(tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"):
        train(tmp_path, max_train_steps=2, resume="must")
    train(tmp_path, max_train_steps=2, resume="never")
    with pytest.raises(ConfigError, match="already holds a run"):
        train(tmp_path, max_train_steps=2, resume="never")
    assert train(tmp_path, max_train_steps=3, resume="must").steps == 3


def test_another_network_is_refused(tmp_path):
    train(tmp_path, max_train_steps=2)
    other = LineTask()
    other.network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0), nn.Linear(8, 1))
    with pytest.raises(CheckpointError, match="another network"):
        train(tmp_path, other, max_train_steps=4)


def test_a_network_that_cannot_be_trained_is_refused(tmp_path):
    frozen, half = LineTask(), LineTask()
    frozen.network.requires_grad_(False)
    half.network.half()
    with pytest.raises(ConfigError, match="nothing would be trained"):
        train(tmp_path, frozen, max_train_steps=2)
    with pytest.raises(ConfigError, match="float16"):
        train(tmp_path, half, max_train_steps=2)


def test_an_epoch_that_ends_early_is_told_and_one_without_a_batch_fails(tmp_path, caplog):
    source = LineSource()
    source.short_by = 4
    assert train(tmp_path, source=source, max_train_steps=5).steps == 5
    assert "ended after 2 of 6 batches" in caplog.text
    source.short_by = 6
    with pytest.raises(TrainingError, match="no batch"):
        train(tmp_path / "other", source=source, max_train_steps=5)


def test_frozen_parts_in_evaluation_mode_stay_so(tmp_path):
    class Partly(LineTask):
        def losses(self, network, batch):
            assert not self.network[2].training
            return super().losses(network, batch)

    task = Partly(dropout=0.5)
    task.network[2].train = lambda mode=True: task.network[2]  # type: ignore[method-assign]
    task.network[2].training = False
    assert train(tmp_path, task, max_train_steps=4, validation_steps=1).steps == 4


def test_bf16_runs_the_network_in_it_and_keeps_the_weights(tmp_path):
    seen = []

    class Watched(LineTask):
        def __init__(self):
            super().__init__()
            self.network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))

    task = Watched()
    train(tmp_path, task, max_train_steps=2, mixed_precision="bf16")
    assert set(seen) == {torch.bfloat16} and task.network[0].weight.dtype == torch.float32
    seen.clear()
    task.network(torch.zeros(1, 4))
    assert seen == [torch.float32]  # nothing is left around the network


def test_fp16_needs_a_gpu(tmp_path):
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(tmp_path, max_train_steps=2, mixed_precision="fp16")
