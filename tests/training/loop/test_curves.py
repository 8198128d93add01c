"""Lines and charts of a run's figures."""

import numpy as np
import pytest
from PIL import Image

from latentsync.training.loop.curves import Curves, read_curves
from latentsync.training.loop.updates import Update
from latentsync.training.reporting.charts import draw_charts, smoothed


def facts(skipped=0):
    return {"lr": 0.1, "step_seconds": 0.5, "samples": 8, "seconds": 1.0, "skipped": skipped}


def test_a_line_is_the_mean_of_its_steps_without_those_that_were_skipped(tmp_path):
    curves = Curves(tmp_path, "name", 3)
    curves.start(0, None)
    for step, value in enumerate([1.0, 2.0, float("nan"), 4.0], start=1):
        curves.add(step, 0, Update({"total": value}, 2 * value, value == value), facts(int(step >= 3)))
    curves.close()
    (line,) = read_curves(tmp_path / "curves.jsonl")
    assert line["step"] == 3 and line["train"] == {"total": 1.5} and line["grad_norm"] == 3.0
    assert line["samples_per_second"] == 16.0 and line["skipped"] == 1
    assert curves.pending["steps"] == 1 and curves.pending["terms"] == {"total": 4.0}


def test_pending_steps_go_on_in_the_next_part_unless_a_line_tells_of_them(tmp_path):
    first = Curves(tmp_path, "name", 2)
    first.start(0, None)
    first.add(1, 0, Update({"total": 1.0}, 1.0, True), facts())
    pending = first.pending
    second = Curves(tmp_path, "name", 2)
    second.start(1, pending)
    second.add(2, 0, Update({"total": 3.0}, 1.0, True), facts())
    first.flush()
    third = Curves(tmp_path, "name", 2)
    third.start(2, pending)
    assert read_curves(tmp_path / "curves.jsonl")[0]["train"] == {"total": 2.0}
    assert third.pending["steps"] == 0
    for curves in (first, second, third):
        curves.close()


def test_figures_that_are_no_numbers_are_null(tmp_path):
    curves = Curves(tmp_path, "name", 1)
    curves.start(0, None)
    curves.add_validation(1, 0, {"a": float("inf"), "b": 1.0})
    curves.close()
    assert read_curves(tmp_path / "curves.jsonl") == [{"step": 1, "epoch": 0, "validation": {"a": None, "b": 1.0}}]


def test_charts_show_every_term(tmp_path):
    train = [{"step": n, "train": {f"term{i}": n * i for i in range(5)}, "lr": 0.1} for n in range(30)]
    few, many = tmp_path / "few" / "a.png", tmp_path / "many" / "a.png"
    draw_charts([{"step": 1, "train": {"total": 1.0}}], few, "few")
    draw_charts([*train, {"step": 30, "validation": {"term0": None, "other": 3.0}}], many, "many")
    with Image.open(few) as small, Image.open(many) as large:
        assert large.height > small.height and np.asarray(large.convert("RGB")).std() > 10
    assert [path.name for path in few.parent.iterdir()] == ["a.png"]


def test_smoothing_is_the_mean_of_the_last_values():
    values = np.array([1.0, 3.0, 5.0, 10.0])
    assert smoothed(values, 2) == pytest.approx([1.0, 2.0, 4.0, 7.5])
    assert smoothed(values, 1) == pytest.approx(values)
