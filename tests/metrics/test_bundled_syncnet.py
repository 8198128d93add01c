"""The SyncNet in checkpoints/demo on held-out people, voices and words."""

from pathlib import Path

import pytest

from latentsync.build.networks import trained_syncnet
from latentsync.data.clips.clip_list import list_clips
from latentsync.evaluation.syncnet_accuracy import EvaluationOptions, judge_offsets, judge_pairs
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.runtime.resources import REPOSITORY
from latentsync.synthetic.corpus import CorpusOptions, make_corpus


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("corpus")
    make_corpus(CorpusOptions(out, scenes=0, val_scenes=2, resolution=128, seconds=2.4, seed=11, workers=1))
    return list_clips(None, out / "val")


def test_it_classifies_pairs_and_estimates_offsets(clips: list[Path]) -> None:
    network, config = trained_syncnet(str(REPOSITORY / "configs" / "syncnet" / "demo.yaml"))
    meter = SyncMeter(network, config.data.num_frames, config.data.lower_half)
    options = EvaluationOptions(num_pairs=96, resolution=config.data.resolution)
    pairs = judge_pairs(meter, clips, options).metrics()
    assert pairs["pairs"] == 96 and pairs["accuracy"] > 0.85
    assert pairs["mean_positive"] > pairs["mean_negative"] + 0.5
    offsets = judge_offsets(meter, clips, options)
    assert len(set(offsets.true)) > 2
    assert all(abs(found - true) <= 1 for found, true in zip(offsets.found, offsets.true, strict=True))
