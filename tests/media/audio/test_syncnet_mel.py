"""The SyncNet mel and its windows equal the published ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.media.audio.syncnet_mel import mel_columns, mel_window, num_mel_windows, syncnet_mel


def test_mel_equals_the_published_one(golden):
    case = golden("mel_syncnet_2s")
    case.check("mel", syncnet_mel(case.inputs["waveform_i16"].float() / 32768))


def test_windows_equal_the_published_ones(golden):
    case = golden("mel_window")
    mel = torch.arange(case.attrs["mel_frames"]).expand(80, -1)
    num_frames = case.attrs["num_frames"]
    assert mel_columns(num_frames) == int(case.outputs["window_length"])
    for start, first, _, accepted in case.outputs["start_firstcol_len_valid"].tolist():
        window = mel_window(mel, start, num_frames)
        assert (window is not None) == bool(accepted)
        if window is not None:
            assert window.shape == (80, 52)
            assert int(window[0, 0]) == first


@given(columns=st.integers(0, 900), num_frames=st.integers(1, 30))
def test_window_count_equals_the_number_of_complete_windows(columns, num_frames):
    count = num_mel_windows(columns, num_frames)
    mel = torch.zeros(80, columns)
    has_window = [mel_window(mel, start, num_frames) is not None for start in range(columns + 2)]
    assert has_window == [start < count for start in range(columns + 2)]


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (199, 1), (200, 2), (86400, 433)])
def test_number_of_columns(samples, columns):
    assert syncnet_mel(torch.zeros(samples)).shape == (80, columns)


def test_silence_and_noise_stay_in_range():
    assert syncnet_mel(torch.zeros(4000)).unique().tolist() == [-4.0]
    loud = syncnet_mel(torch.rand(8000) * 2 - 1)
    assert float(loud.min()) >= -4
    assert float(loud.max()) <= 4


def test_click_peaks_in_its_column():
    waveform = torch.zeros(16000)
    waveform[8000] = 0.9
    assert int(syncnet_mel(waveform).sum(0).argmax()) == pytest.approx(40, abs=1)
