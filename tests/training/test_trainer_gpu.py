"""What the training loop does on a GPU only."""

import pytest
import torch

from latentsync.training.loop.checkpointing import read_state
from latentsync.training.loop.curves import read_curves
from latentsync.training.loop.trainer import Trainer
from tests.training.line_task import LineSource, LineTask, kill_at, options

pytestmark = pytest.mark.gpu


def train(run, task=None, source=None, **changes):
    return Trainer(task or LineTask(), source or LineSource(), options(run, cpu=False, **changes)).run()


def totals(run):
    return [line["train"].get("total") for line in read_curves(run / "curves.jsonl") if "train" in line]


@pytest.mark.parametrize(("precision", "dtype"), [("auto", None), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_mixed_precision_trains_as_full_precision_nearly_does(tmp_path, precision, dtype):
    seen = []
    task = LineTask()
    task.network[0].register_forward_hook(lambda module, args, output: seen.append(str(output.dtype)))
    result = train(tmp_path / "mixed", task, max_train_steps=20, mixed_precision=precision, ema_decay=0.9)
    train(tmp_path / "full", max_train_steps=20, mixed_precision="no")
    applied = 20 - result.skipped
    assert applied >= 15 and result.peak_cuda_bytes > 0 and result.steps_per_second > 0
    # fp16 may skip its first steps until the loss scale fits.
    assert totals(tmp_path / "mixed")[0] == pytest.approx(totals(tmp_path / "full")[0], rel=0.02)
    assert set(seen) == {f"torch.{dtype}"} if dtype else seen[0] in ("torch.bfloat16", "torch.float16")
    state = torch.load(result.weights, weights_only=True)["state_dict"]
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_resumed_run_ends_as_a_whole_one(tmp_path, precision):
    same = {"max_train_steps": 16, "mixed_precision": precision, "ema_decay": 0.9, "validation_steps": 8}
    whole = train(tmp_path / "whole", LineTask(dropout=0.2), **same)
    source = LineSource()
    source.before_batch = kill_at(7)
    train(tmp_path / "parts", LineTask(dropout=0.2), source, **same)
    parts = train(tmp_path / "parts", LineTask(seed=1, dropout=0.2), **same)
    first, second = read_state(whole.checkpoint), read_state(parts.checkpoint)
    assert first["scaler"] == second["scaler"]
    for name, value in first["network"].items():
        assert torch.equal(value, second["network"][name])
        assert torch.equal(first["ema"]["averages"][name], second["ema"]["averages"][name])
    assert totals(tmp_path / "whole") == totals(tmp_path / "parts")


def test_a_gradient_out_of_fp16_range_is_skipped_and_the_scale_falls(tmp_path):
    class Steep(LineTask):
        def losses(self, network, batch):
            terms = super().losses(network, batch)
            return {**terms, "total": terms["total"] * (1e6 if int(batch["number"]) < 2 else 1.0)}

    result = train(tmp_path, Steep(), max_train_steps=30, mixed_precision="fp16")
    assert 1 <= result.skipped < 20
    assert read_state(result.checkpoint)["scaler"]["scale"] < 65536


def test_a_compiled_network_trains_the_same_and_keeps_its_names(tmp_path):
    whole = train(tmp_path / "plain", max_train_steps=8, mixed_precision="bf16")
    compiled = train(tmp_path / "compiled", max_train_steps=8, mixed_precision="bf16", compile=True, validation_steps=4)
    names = [torch.load(result.weights, weights_only=True)["state_dict"].keys() for result in (whole, compiled)]
    assert names[0] == names[1]
    assert totals(tmp_path / "compiled") == pytest.approx(totals(tmp_path / "plain"), rel=0.05, abs=0.02)


def test_an_average_in_main_memory_is_the_same(tmp_path):
    results = [
        train(tmp_path / str(on_cpu), max_train_steps=8, mixed_precision="no", ema_decay=0.9, ema_on_cpu=on_cpu)
        for on_cpu in (False, True)
    ]
    first, second = (torch.load(result.weights, weights_only=True)["state_dict"] for result in results)
    for name in first:
        torch.testing.assert_close(first[name].cpu(), second[name].cpu(), rtol=1e-6, atol=1e-7)
