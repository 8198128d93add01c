"""Augmented speech: the features are Whisper's, and the labels stay where the sound is."""

import numpy as np
import pytest
import torch

from latentsync.synthetic.speech.visemes import VISEME_NAMES
from latentsync.training.demo.audio_batches import TracksOnDevice, distort
from latentsync.training.demo.speech_tracks import TRACK_ROWS, TRACK_SAMPLES, SpeechTracks, make_track
from latentsync.whisper.log_mel import log_mel


@pytest.fixture(scope="module")
def tracks() -> SpeechTracks:
    """One real track, and one of clicks whose class changes with every click."""
    real = make_track(5, "train")
    waveform = np.zeros((1, TRACK_SAMPLES), np.int16)
    classes = np.zeros((1, TRACK_ROWS), np.int8)
    curves = np.zeros((1, TRACK_ROWS, 7), np.float16)
    for row in range(10, TRACK_ROWS, 60):
        waveform[0, row * 320 : row * 320 + 640] = np.random.default_rng(row).integers(-20000, 20000, 640)
        classes[0, row : row + 2] = 3
        curves[0, row : row + 2, 0] = 1.0
    return SpeechTracks(
        np.concatenate([real.waveforms, waveform]),
        np.concatenate([real.curves, curves]),
        np.concatenate([real.classes, classes]),
    )


def test_track_has_the_documented_arrays(tracks: SpeechTracks) -> None:
    assert tracks.waveforms.shape == (2, TRACK_SAMPLES) and tracks.waveforms.dtype == np.int16
    assert tracks.curves.shape == (2, TRACK_ROWS, 7) and tracks.classes.shape == (2, TRACK_ROWS)
    assert tracks.classes.min() >= 0 and tracks.classes.max() < len(VISEME_NAMES)
    speaking = tracks.classes[0] != 0
    loudness = np.abs(tracks.waveforms[0].astype(np.float32)).reshape(TRACK_ROWS, 320).mean(1)
    assert loudness[speaking].mean() > 5 * loudness[~speaking].mean()


def test_clean_batch_equals_the_whole_file_mel(tracks: SpeechTracks) -> None:
    batch = TracksOnDevice(tracks, torch.device("cpu")).clean(torch.tensor([1, 0]))
    expected = log_mel(torch.from_numpy(tracks.waveforms[0]).float() / 32768)
    torch.testing.assert_close(batch.mel[1], expected, atol=1e-5, rtol=0)
    assert batch.valid.all() and batch.curves.shape == (2, TRACK_ROWS, 7)


def test_labels_follow_the_sound_through_every_distortion(tracks: SpeechTracks) -> None:
    clicks = TracksOnDevice(
        SpeechTracks(tracks.waveforms[1:], tracks.curves[1:], tracks.classes[1:]), torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(11)
    for _ in range(3):
        batch = clicks.augmented(2, generator)
        for mel, labels, valid in zip(batch.mel, batch.classes == 3, batch.valid, strict=True):
            energy = mel.mean(dim=0).unflatten(0, (TRACK_ROWS, 2)).amax(dim=1)
            click, quiet = energy[labels & valid], energy[~labels & valid]
            assert click.median() > quiet.median() + 0.1
        assert torch.all(batch.mel[..., ::2][(~batch.valid)[:, None].expand(-1, 80, -1)] == 0)


def test_distortion_keeps_length_and_range(tracks: SpeechTracks) -> None:
    waveforms = torch.from_numpy(tracks.waveforms[:, :48000]).float() / 32768
    distorted = distort(waveforms, torch.Generator().manual_seed(0))
    assert distorted.shape == waveforms.shape and distorted.abs().max() <= 1
    assert not torch.equal(distorted, waveforms)
