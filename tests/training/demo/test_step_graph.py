"""Steps that need each other, with real processes."""

import sys
import time
from pathlib import Path

import pytest

from latentsync.errors import ConfigError, TrainingError
from latentsync.training.demo.step_graph import Step, StepGraph


def writer(folder: Path, name: str, *needs: str, code: str = "0") -> Step:
    """A step that appends its name to a file."""
    line = f"import os, pathlib; {code}; open({str(folder / 'order')!r}, 'a').write({name!r} + os.environ['MARK'])"
    return Step(name, lambda: [sys.executable, "-c", line], needs, {"MARK": "."})


def order(folder: Path) -> list[str]:
    return (folder / "order").read_text().rstrip(".").split(".")


def test_steps_run_after_what_they_need(tmp_path: Path) -> None:
    StepGraph([writer(tmp_path, "c", "a", "b"), writer(tmp_path, "b", "a"), writer(tmp_path, "a")], tmp_path).run()
    assert order(tmp_path) == ["a", "b", "c"]


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    # Each waits for a file that the other one makes.
    meet = (
        "[open({mine!r}, 'w'), [__import__('time').sleep(0.01) for _ in iter(lambda: os.path.exists({other!r}), True)]]"
    )
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    steps = [
        writer(tmp_path, "a", code=meet.format(mine=first, other=second)),
        writer(tmp_path, "b", code=meet.format(mine=second, other=first)),
    ]
    StepGraph(steps, tmp_path).run()
    assert sorted(order(tmp_path)) == ["a", "b"]


def test_a_failed_step_is_told_and_ends_the_others(tmp_path: Path) -> None:
    steps = [
        writer(tmp_path, "good"),
        writer(tmp_path, "bad", "good", code="raise SystemExit('no luck')"),
        writer(tmp_path, "slow", "good", code="__import__('time').sleep(60)"),
        writer(tmp_path, "after", "bad"),
    ]
    started = time.monotonic()
    with pytest.raises(TrainingError, match="(?s)bad failed with exit code 1.*no luck") as caught:
        StepGraph(steps, tmp_path).run()
    assert str(tmp_path / "logs" / "bad.log") in str(caught.value)
    assert time.monotonic() - started < 50
    assert order(tmp_path) == ["good"]
    StepGraph(
        [writer(tmp_path, name, *needs) for name, *needs in (["good"], ["bad", "good"], ["after", "bad"])], tmp_path
    ).run()
    assert order(tmp_path) == ["good", "bad", "after"]


@pytest.mark.parametrize(
    ("steps", "words"), [([("a", ("b",)), ("b", ("a",))], "never start"), ([("a", ()), ("a", ())], "one name")]
)
def test_impossible_plans_are_refused(steps: list[tuple[str, tuple[str, ...]]], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        StepGraph([Step(name, list, needs) for name, needs in steps], tmp_path)
