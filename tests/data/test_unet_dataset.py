"""Samples of the U-Net: their windows, paired takes, and replacement of unusable clips."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.clips.clip_reader import ClipReader
from latentsync.data.unet_dataset import UNetDataset, UNetSampling
from latentsync.errors import ConfigError, DataError
from latentsync.media.audio.syncnet_mel import mel_window
from tests.data.corpus import SIDE, bad_clips, good_clip, numbers

FRAMES = 8
OPTIONS = ClipDatasetOptions(num_frames=FRAMES, resolution=SIDE, seed=3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [good_clip(folder / f"{number}.mp4", count=30 + 5 * number, seed=number) for number in range(3)]


def samples(dataset, epochs):
    return [dataset[dataset.order.key(epoch, index)] for epoch in range(epochs) for index in range(len(dataset))]


def test_windows_match_their_starts(clips):
    dataset = UNetDataset(clips, OPTIONS, UNetSampling(with_mel=True))
    seen = set()
    for sample in samples(dataset, 12):
        start = int(sample.starts)
        assert numbers(sample.gt_frames[0].numpy()) == list(range(start, start + FRAMES))
        reference = numbers(sample.ref_frames[0].numpy())
        assert reference == list(range(reference[0], reference[0] + FRAMES))
        assert abs(reference[0] - start) >= FRAMES
        assert sample.source_frames is sample.gt_frames
        expected = mel_window(ClipReader().mel(Path(sample.clips[0])), start, FRAMES)
        assert expected is not None
        assert torch.equal(sample.mel[0, 0], expected)
        assert sample.problems == {}
        seen.add((sample.clips[0], start))
    assert {clip for clip, _ in seen} == {str(clip) for clip in clips}
    assert len({start for _, start in seen}) > 8


def test_reference_covers_all_windows_that_do_not_overlap(clips):
    dataset = UNetDataset(clips[:1], OPTIONS)
    drawn: dict[int, set[int]] = {}
    for sample in samples(dataset, 150):
        drawn.setdefault(int(sample.starts), set()).add(numbers(sample.ref_frames[0, :1].numpy())[0])
    last = 30 - FRAMES
    assert min(drawn) == 0
    assert max(drawn) == last
    assert set().union(*drawn.values()) <= set(range(last + 1))
    assert {0, last} <= set().union(*drawn.values())


def test_same_key_gives_the_same_sample_and_mel_only_if_requested(clips):
    first, second = (UNetDataset(clips, OPTIONS) for _ in range(2))
    key = first.order.key(5, 1)
    first[first.order.key(0, 0)]
    assert torch.equal(first[key].gt_frames, second[key].gt_frames)
    assert first[key].mel.shape == (1, 1, 80, 0)
    with_mel = UNetDataset(clips, OPTIONS, UNetSampling(with_mel=True))[key]
    assert with_mel.mel.shape == (1, 1, 80, 26)


@pytest.mark.parametrize(("prob", "expected"), [(1.0, 12), (0.0, 0)])
def test_reference_may_be_the_window_itself(clips, prob, expected):
    dataset = UNetDataset(clips, OPTIONS, UNetSampling(ref_same_prob=prob))
    drawn = samples(dataset, 4)
    assert sum(torch.equal(sample.ref_frames, sample.source_frames) for sample in drawn) == expected
    plain = UNetDataset(clips, OPTIONS)
    assert [int(sample.starts) for sample in samples(plain, 4)] == [int(sample.starts) for sample in drawn]


def test_other_take_is_the_masked_source(tmp_path):
    takes = [good_clip(tmp_path / f"0_{take}.mp4", count=40, seed=k, first=100 * k) for k, take in enumerate("ab")]
    for take, other in zip(takes, reversed(takes)):
        take.with_suffix(".json").write_text(json.dumps({"other_take": other.name}))
    single = good_clip(tmp_path / "1.mp4", count=40)
    dataset = UNetDataset([*takes, single], OPTIONS, UNetSampling(paired_takes=True))
    for sample in samples(dataset, 4):
        start, clip = int(sample.starts), sample.clips[0]
        target_base = 100 if clip == str(takes[1]) else 0
        source_base = {str(takes[0]): 100, str(takes[1]): 0, str(single): 0}[clip]
        assert numbers(sample.gt_frames[0].numpy()) == list(range(target_base + start, target_base + start + FRAMES))
        source_numbers = numbers(sample.source_frames[0].numpy())
        assert source_numbers == list(range(source_base + start, source_base + start + FRAMES))
        reference = numbers(sample.ref_frames[0].numpy())[0] - source_base
        assert 0 <= reference <= 32
        assert abs(reference - start) >= FRAMES
    batch = dataset.collate(samples(dataset, 1))
    assert batch.source_frames.shape == batch.gt_frames.shape == (3, FRAMES, 3, SIDE, SIDE)
    assert not torch.equal(batch.source_frames, batch.gt_frames)


def test_missing_other_take_is_reported_under_its_own_path(tmp_path, clips):
    clip = good_clip(tmp_path / "0_a.mp4", count=40)
    clip.with_suffix(".json").write_text('{"other_take": "0_b.mp4"}')
    dataset = UNetDataset([clip, *clips], OPTIONS, UNetSampling(paired_takes=True))
    problems = dataset.collate(samples(dataset, 3)).problems
    assert list(problems) == [str(tmp_path / "0_b.mp4")]


def test_unusable_clips_are_replaced_by_others(tmp_path, clips):
    bad = bad_clips(tmp_path)
    dataset = UNetDataset([*clips, *bad.values()], OPTIONS)
    drawn = samples(dataset, 3)
    assert {sample.clips[0] for sample in drawn} == {str(clip) for clip in clips}
    problems = dataset.collate(drawn).problems
    assert set(problems) == {str(clip) for clip in bad.values()}
    for word, clip in bad.items():
        assert word in problems[str(clip)]


def test_only_unusable_clips_raise_data_error(tmp_path):
    bad = list(bad_clips(tmp_path).values())
    with pytest.raises(DataError, match="6 clips were tried") as caught:
        samples(UNetDataset(bad, OPTIONS), 1)
    assert "mp4: " in str(caught.value)
    few = dataclasses.replace(OPTIONS, max_attempts=2)
    with pytest.raises(DataError, match="2 clips were tried"):
        samples(UNetDataset(bad, few), 1)


def test_no_clips_and_bad_options_are_refused(clips):
    with pytest.raises(DataError):
        UNetDataset([], OPTIONS)
    with pytest.raises(ConfigError, match="num_frames"):
        ClipDatasetOptions(num_frames=0)
    with pytest.raises(ConfigError, match="ref_same_prob"):
        UNetSampling(ref_same_prob=1.5)
