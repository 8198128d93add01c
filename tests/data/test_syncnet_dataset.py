"""Pairs for SyncNet: labels, offsets, and the matching audio."""

import pytest
import torch

from latentsync.data.augmentation import FrameAugmentation
from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.clips.clip_reader import ClipReader
from latentsync.data.syncnet_dataset import SyncNetDataset, SyncNetSampling
from latentsync.errors import ConfigError
from latentsync.media.audio.syncnet_mel import mel_window
from tests.data.corpus import SIDE, good_clip, numbers
from tests.media.shifted_sound import shift_sound

FRAMES = 8
OPTIONS = ClipDatasetOptions(num_frames=FRAMES, resolution=SIDE, seed=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good_clip(tmp_path_factory.mktemp("clips") / "a.mp4", count=40, seed=1)


def samples(dataset, epochs):
    return [dataset[dataset.order.key(epoch, index)] for epoch in range(epochs) for index in range(len(dataset))]


def audio_start(sample):
    return numbers(sample.frames[0, :1].numpy())[0] - int(sample.shifts)


def test_audio_and_frames_match_labels_and_shifts(clip):
    mel = ClipReader().mel(clip)
    drawn = samples(SyncNetDataset([clip], OPTIONS), 150)
    for sample in drawn:
        assert bool(sample.labels) == (int(sample.shifts) == 0)
        start = numbers(sample.frames[0].numpy())
        assert start == list(range(start[0], start[0] + FRAMES))
        expected = mel_window(mel, audio_start(sample), FRAMES)
        assert expected is not None
        assert torch.equal(sample.mel[0, 0], expected)
    assert 50 < sum(int(sample.labels) for sample in drawn) < 100
    assert {audio_start(sample) for sample in drawn} == set(range(33))
    # As published: any other start, including one that overlaps by all but one frame.
    distances = {abs(int(sample.shifts)) for sample in drawn}
    assert 1 in distances
    assert max(distances) > 24


def test_min_shift_and_near_negatives(clip):
    sampling = SyncNetSampling(positive_prob=0.0, min_shift=3)
    drawn = [abs(int(sample.shifts)) for sample in samples(SyncNetDataset([clip], OPTIONS, sampling), 100)]
    assert min(drawn) == 3
    sampling = SyncNetSampling(positive_prob=0.0, near_negative_prob=1.0, near_shift=(2, 4))
    drawn = [abs(int(sample.shifts)) for sample in samples(SyncNetDataset([clip], OPTIONS, sampling), 100)]
    assert set(drawn) == {2, 3, 4}
    sampling = SyncNetSampling(positive_prob=0.0, near_negative_prob=0.5, near_shift=(1, 2))
    drawn = [abs(int(sample.shifts)) for sample in samples(SyncNetDataset([clip], OPTIONS, sampling), 100)]
    assert 40 < sum(distance <= 2 for distance in drawn) < 75


def test_clip_of_minimum_length_has_windows_far_enough_apart(tmp_path):
    clip = good_clip(tmp_path / "a.mp4", count=FRAMES + 2 * 12)
    sampling = SyncNetSampling(positive_prob=0.0, min_shift=12)
    drawn = samples(SyncNetDataset([clip], OPTIONS, sampling), 60)
    assert {abs(int(sample.shifts)) >= 12 for sample in drawn} == {True}


def test_audio_shifted_by_timestamps_stays_shifted(clip, tmp_path):
    moved = shift_sound(clip, tmp_path / "moved.mp4", 0.2)
    sampling = SyncNetSampling(positive_prob=1.0)
    plain, late = (samples(SyncNetDataset([path], OPTIONS, sampling), 60) for path in (clip, moved))
    mel_of = {audio_start(sample): sample.mel for sample in plain}
    compared = 0
    for sample in late:
        # The audio of frame n is that of frame n - 5 in the original clip.
        expected = mel_of.get(audio_start(sample) - 5)
        if expected is not None and audio_start(sample) > 6:
            compared += 1
            assert (sample.mel - expected).abs().mean() < 0.05
    assert compared > 10


def test_audio_that_ends_early_limits_the_windows(tmp_path):
    clip = shift_sound(good_clip(tmp_path / "a.mp4", count=40), tmp_path / "b.mp4", -0.4)
    drawn = samples(SyncNetDataset([clip], OPTIONS), 60)
    assert max(audio_start(sample) for sample in drawn) == 30 - FRAMES
    assert {sample.mel.shape for sample in drawn} == {(1, 1, 80, 26)}


def test_augmentation_changes_only_the_frames(clip):
    plain = samples(SyncNetDataset([clip], OPTIONS), 10)
    changed = samples(SyncNetDataset([clip], OPTIONS, SyncNetSampling(augmentation=FrameAugmentation(prob=1.0))), 10)
    again = samples(SyncNetDataset([clip], OPTIONS, SyncNetSampling(augmentation=FrameAugmentation(prob=1.0))), 10)
    for sample, other, same in zip(plain, changed, again):
        assert torch.equal(sample.mel, other.mel)
        assert int(sample.shifts) == int(other.shifts)
        assert torch.equal(other.frames, same.frames)
    assert sum(not torch.equal(sample.frames, other.frames) for sample, other in zip(plain, changed)) == 10


def test_bad_options_are_refused():
    for options in ({"positive_prob": 2.0}, {"min_shift": 0}, {"near_shift": (3, 2)}):
        with pytest.raises(ConfigError):
            SyncNetSampling(**options)
