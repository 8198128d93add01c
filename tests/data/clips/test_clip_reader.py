"""Frames and audio of clips, on the same timeline."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.media.audio.syncnet_mel import mel_window, syncnet_mel
from tests.data.corpus import SIDE, frames, good_clip, noise, numbers
from tests.media.shifted_sound import click_track, shift_sound, write_clip


def test_windows_contain_the_requested_frames(tmp_path):
    reader = ClipReader()
    clip = good_clip(tmp_path / "a.mp4")
    windows = reader.windows(clip, [40, 3], 16, SIDE)
    assert [numbers(window.numpy()) for window in windows] == [list(range(40, 56)), list(range(3, 19))]
    assert all(window.shape == (16, 3, SIDE, SIDE) and window.dtype == torch.uint8 for window in windows)


def test_other_sizes_and_rates_are_converted(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames(60, 96), noise(1.2), fps=50)
    reader = ClipReader()
    assert reader.num_frames(clip) == 30
    window = reader.windows(clip, [4], 8, SIDE)[0]
    assert window.shape == (8, 3, SIDE, SIDE)
    # Of 50 frames per second every other one is used.
    assert numbers(window.numpy()) == list(range(8, 24, 2))


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_mel_follows_a_track_shifted_by_timestamps(tmp_path, shift):
    clip = write_clip(tmp_path / "a.mp4", frames(75), click_track(3, 1.0))
    moved = shift_sound(clip, tmp_path / "moved.mp4", shift)
    peak = int(ClipReader().mel(moved).sum(0).argmax())
    assert peak / 80 == pytest.approx(1 + shift, abs=0.02)


def test_mel_cache_distinguishes_clips_of_the_same_name(tmp_path):
    clips = [good_clip(tmp_path / folder / "00001.mp4", seed=seed) for seed, folder in enumerate("ab")]
    fresh = [ClipReader().mel(clip) for clip in clips]
    assert not torch.equal(fresh[0], fresh[1])
    for _ in range(2):
        cached = ClipReader(tmp_path / "cache")
        assert all(torch.equal(cached.mel(clip), mel) for clip, mel in zip(clips, fresh))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_mel_of_a_replaced_clip_is_recomputed(tmp_path):
    clip = good_clip(tmp_path / "a.mp4", seed=1)
    reader = ClipReader(tmp_path / "cache")
    before = reader.mel(clip)
    good_clip(clip, count=70, seed=2)
    assert reader.num_frames(clip) == 70
    assert reader.mel(clip).shape != before.shape


def test_mel_covers_every_frame_of_a_clip_with_full_audio(tmp_path):
    mel = ClipReader().mel(good_clip(tmp_path / "a.mp4", count=60))
    assert mel_window(mel, 60 - 16, 16) is not None
    assert mel.shape[1] == syncnet_mel(torch.zeros(60 * 640)).shape[1]


def test_unusable_clips_have_a_reason(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x" * 1000)
    with pytest.raises(UnusableClip, match="damaged") as caught:
        ClipReader().num_frames(tmp_path / "a.mp4")
    assert caught.value.clip == tmp_path / "a.mp4"
    with pytest.raises(UnusableClip, match="cannot be found"):
        ClipReader().mel(tmp_path / "b.mp4")
    with pytest.raises(UnusableClip, match="no audio"):
        ClipReader().waveform(write_clip(tmp_path / "c.mp4", frames(5), None))


def test_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(UnusableClip(Path("a.mp4"), "silent")))  # noqa: S301 - pickled above
    assert (error.clip, error.reason, str(error)) == (Path("a.mp4"), "silent", "a.mp4: silent")


def test_pixels_are_read_without_color_shift(tmp_path):
    clip = good_clip(tmp_path / "a.mp4")
    first = ClipReader().windows(clip, [0], 4, SIDE)[0].numpy()
    truth = np.moveaxis(frames(4), -1, 1)
    assert np.abs(first.astype(int) - truth).mean() < 6
