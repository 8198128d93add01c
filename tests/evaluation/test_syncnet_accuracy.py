"""Judging on clips whose picture shows how loud the sound is, with a network that compares just that."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.errors import DataError
from latentsync.evaluation.syncnet_accuracy import EvaluationOptions, JudgedPairs, judge_offsets, judge_pairs
from tests.metrics.level_network import level_meter, write_pulsing

OPTIONS = EvaluationOptions(num_pairs=60, resolution=32, largest_offset=5, batch_size=8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_pulsing(folder / f"clip_{seed}.mp4", seed) for seed in range(4)]


def test_pairs_are_told_apart_and_the_same_at_every_call(clips: list[Path]):
    judged = judge_pairs(level_meter(), clips, OPTIONS)
    again = judge_pairs(level_meter(batch_size=3), clips, OPTIONS)
    assert len(judged.scores) == 60
    assert judged.scores == pytest.approx(again.scores, abs=1e-5)
    assert np.array_equal(judged.shifts, again.shifts)
    assert np.array_equal(judged.labels == 1, judged.shifts == 0)
    metrics = judged.metrics()
    assert metrics["best_accuracy"] > 0.95
    assert metrics["area_under_curve"] > 0.97
    other = judge_pairs(level_meter(), clips, EvaluationOptions(num_pairs=60, resolution=32, seed=7, batch_size=8))
    assert not np.array_equal(judged.shifts, other.shifts)


def test_pairs_out_of_sync_are_as_far_apart_as_asked(clips: list[Path]):
    options = EvaluationOptions(num_pairs=40, resolution=32, min_shift=9, batch_size=8)
    shifts = judge_pairs(level_meter(), clips, options).shifts
    assert set(np.abs(shifts[shifts != 0]) >= 9) == {True}


def test_figures_by_distance():
    pairs = JudgedPairs(
        np.array([0.9, 0.4, 0.8, 0.2, 0.1]), np.array([1.0, 1, 0, 0, 0]), np.array([0, 0, -1, 4, 30]), {}
    )
    assert pairs.metrics()["right_by_shift"] == {"0": 0.5, "1": 0.0, "3-5": 1.0, "11+": 1.0}


def test_offsets_of_shifted_sound_are_found(clips: list[Path]):
    judged = judge_offsets(level_meter(), clips, OPTIONS)
    assert len(set(judged.true.tolist())) > 1
    assert np.abs(judged.true).max() <= 5
    assert judged.metrics()["within_one"] == 1
    assert judged.problems == {}


def test_clips_that_cannot_be_judged_are_left_out_and_named(clips: list[Path], tmp_path: Path):
    short = write_pulsing(tmp_path / "short.mp4", 9, frames=20)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    judged = judge_offsets(level_meter(), [short, broken, *clips[:1]], OPTIONS)
    assert len(judged.true) == 1
    assert set(judged.problems) == {str(short), str(broken)}
    assert "too short" in judged.problems[str(short)]
    with pytest.raises(DataError, match="None of 1 clips"):
        judge_offsets(level_meter(), [short], OPTIONS)


def test_an_evaluation_leaves_the_random_state_alone(clips: list[Path]):
    before = torch.get_rng_state()
    judge_offsets(level_meter(), clips[:1], OPTIONS)
    judge_pairs(level_meter(), clips, EvaluationOptions(num_pairs=8, resolution=32, batch_size=8))
    assert torch.equal(before, torch.get_rng_state())
