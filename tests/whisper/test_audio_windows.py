"""Feature windows: equal to the published ones in published mode, without jumps every 30 s in continuous mode."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentsync.errors import MediaError
from latentsync.whisper.audio_encoder import AudioEncoder
from latentsync.whisper.audio_windows import (
    AudioWindows,
    SegmentPlan,
    feature_length,
    gather_windows,
    published_window_count,
    window_rows,
)
from tests.golden_files import formula_weight
from tests.whisper.micro import chirp, micro_encoder, windows_of

CHUNK_CASES = [f"chunks_L{length}_fps{fps}" for length in (37, 480, 1501) for fps in (25, 30)]


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return micro_encoder()


@pytest.mark.parametrize("name", ["audio2feat_micro_short", "audio2feat_micro_30s_exact", "audio2feat_micro_31s"])
def test_published_features_match_golden(golden, encoder, name):
    case = golden(name)
    windows = windows_of(encoder, chirp(case.attrs["samples"], case.attrs["chirp_seed"]), "published")
    assert windows.num_rows == case.outputs["n"].item() == feature_length(case.attrs["samples"])
    features = windows.features(0, windows.num_rows)
    case.check("features", features[case.attrs["rows"]])
    case.check("mean_per_frame", features.mean(dim=(1, 2)))


@pytest.mark.parametrize("name", CHUNK_CASES)
def test_published_windows_match_golden(golden, name):
    case = golden(name)
    length, fps = case.attrs["length"], case.attrs["fps"]
    count = published_window_count(length, fps)
    assert count == case.outputs["n_chunks"].item()
    rows = window_rows(0, count, fps, length)
    assert torch.equal(rows, case.outputs["frame_index"].long())
    flat = gather_windows(torch.arange(length * 5 * 3, dtype=torch.float32).reshape(length, 5, 3), rows[1:2])[0]
    case.check("row0_of_chunk1_flat", flat)


def test_published_training_windows_match_golden(golden):
    case = golden("crop_overlap")
    length, start, frames = (case.attrs[key] for key in ("length", "start", "num_frames"))
    rows = window_rows(start, start + frames, 25, length)
    assert torch.equal(rows, case.outputs["frame_index"].long())
    case.check("windows", gather_windows(torch.arange(length * 10.0).reshape(length, 5, 2), rows))


@given(frame=st.integers(0, 10**7), fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001)]))
def test_center_row_covers_the_frame_time(frame, fps):
    rows = window_rows(frame, frame + 1, fps, 10**9)[0]
    moment = frame / fps * 50
    center = int(rows[4]) if frame * 50 / fps >= 4 else int(rows[-1]) - 5
    assert center <= moment < center + 1


@pytest.mark.parametrize("seconds", [0.02, 1.2345, 29.99])
def test_modes_agree_on_short_audio(encoder, seconds):
    waveform = chirp(int(seconds * 16000), 4)
    continuous, published = (windows_of(encoder, waveform, mode) for mode in ("continuous", "published"))
    assert torch.equal(continuous[:], published[:])


@settings(max_examples=25)
@given(data=st.data(), samples=st.integers(320, 130 * 160), mode=st.sampled_from(["continuous", "published"]))
def test_any_slice_equals_reading_all_at_once(data, samples, mode):
    # 60 rows per segment: many segments, short last ones, slices that start or end inside a cross-fade.
    small = short_encoder()
    waveform = chirp(samples * 4, 5)
    frames = data.draw(st.integers(1, 140), label="frames")
    fps = data.draw(st.sampled_from([Fraction(25), Fraction(30), Fraction(24000, 1001)]), label="fps")
    whole = AudioWindows(small, waveform, fps, frames, mode)[:]
    windows = AudioWindows(small, waveform, fps, frames, mode)
    for _ in range(4):
        start = data.draw(st.integers(0, frames), label="start")
        stop = data.draw(st.integers(start, frames), label="stop")
        assert torch.equal(windows[start:stop], whole[start:stop])


def short_encoder() -> AudioEncoder:
    """A small encoder with segments of 60 rows, whose weights do not depend on the random state."""
    small = micro_encoder(n_audio_ctx=60, n_audio_layer=2)
    state = {key: formula_weight(key, value.shape) for key, value in small.state_dict().items()}
    state["encoder.positional_embedding"] = small.state_dict()["encoder.positional_embedding"]
    small.load_state_dict(state)
    return small


@given(length=st.integers(1, 20000), mode=st.sampled_from(["continuous", "published"]), size=st.integers(30, 1500))
def test_plan_covers_every_row_without_unused_segments(length, mode, size):
    plan = SegmentPlan.for_continuity(mode, size)
    spans = [plan.used_rows(index, length) for index in range(plan.count(length))]
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for index, (first, stop) in enumerate(spans):
        assert first < stop
        assert index * plan.hop <= first
        assert stop <= index * plan.hop + plan.size
        if index:
            assert spans[index - 1][1] - first == plan.fade
        assert list(
            plan.segments_for(first + plan.fade * (index > 0), first + plan.fade * (index > 0) + 1, length)
        ) == [index]


WAVEFORMS = {
    "tone": 0.3 * torch.sin(2 * torch.pi * 300 / 16000 * torch.arange(65 * 16000)),
    "noise": 0.1 * torch.randn(65 * 16000, generator=torch.Generator().manual_seed(3)),
    "chirp": chirp(65 * 16000, 3),
}


def row_changes(encoder: AudioEncoder, waveform: torch.Tensor, mode: str) -> torch.Tensor:
    """Mean change from each feature row to the next, (rows - 1,)."""
    windows = windows_of(encoder, waveform, mode)
    return windows.features(0, windows.num_rows).diff(dim=0).abs().mean(dim=(1, 2))


@pytest.mark.parametrize("sound", WAVEFORMS)
def test_no_jump_at_segment_boundaries(encoder, sound):
    changes = row_changes(encoder, WAVEFORMS[sound], "continuous")
    boundary = torch.zeros(len(changes), dtype=torch.bool)
    for index in (1, 2):
        boundary[index * 1000 + 140 : index * 1000 + 360] = True
    ends = slice(20, -20)  # the recording's own start and end are real changes
    assert changes[ends][boundary[ends]].max() <= changes[ends][~boundary[ends]].max()
    assert changes[boundary].median() <= 1.2 * changes[~boundary].median()


def test_published_segments_jump_at_their_boundaries(encoder):
    """Verifies that the metric of the previous test is sensitive to jumps."""
    changes = row_changes(encoder, WAVEFORMS["noise"], "published")
    assert changes[[1499, 2999]].min() > 2 * changes[20:1480].max()


def test_sequential_reading_encodes_each_segment_once_and_caches_two():
    small = short_encoder()
    calls: list[int] = []
    small.register_forward_hook(lambda *_: calls.append(1))
    windows = windows_of(small, chirp(20 * 16000, 7))
    for start in range(0, len(windows), 16):
        windows[start : start + 16]
        assert len(windows._segments) <= 2
    assert len(calls) == windows.plan.count(windows.num_rows)


def test_frames_beyond_the_audio_repeat_its_last_row(encoder):
    windows = AudioWindows(encoder, chirp(16000, 8), 25, 100)
    assert windows[60:].shape == (40, 50, 16)
    assert torch.equal(windows[60:61], windows[99:100])


def test_shape_dtype_and_empty_slice(encoder):
    windows = AudioWindows(encoder, chirp(16000, 8), Fraction(25), 25)
    assert len(windows) == 25
    assert windows[3:19].shape == (16, 50, 16)
    assert windows[5:5].shape == (0, 50, 16)
    assert windows[-2:].shape == (2, 50, 16)
    assert windows[:].dtype == encoder.dtype
    assert not windows[:].requires_grad


def test_half_precision_is_close_to_full():
    waveform = chirp(16000, 9)
    half = micro_encoder().to(torch.float16)
    full = AudioWindows(micro_encoder(), waveform, 25, 25)[:]
    features = AudioWindows(half, waveform, 25, 25)[:]
    assert features.dtype == torch.float16
    assert (features.float() - full).abs().max() < 0.02 * full.abs().max()


@pytest.mark.gpu
def test_gpu_half_precision_is_close_to_cpu():
    waveform = chirp(40 * 16000, 11)
    full = windows_of(micro_encoder(), waveform)
    half = windows_of(micro_encoder().to("cuda", torch.float16), waveform)
    for start in (0, 500, 984):
        window = half[start : start + 16]
        assert window.device.type == "cuda"
        assert (window.float().cpu() - full[start : start + 16]).abs().max() < 0.02 * full[:].abs().max()


def test_invalid_arguments_are_refused(encoder):
    with pytest.raises(MediaError, match="too short"):
        AudioWindows(encoder, torch.zeros(319), 25, 1)
    with pytest.raises(ValueError, match="continuity"):
        AudioWindows(encoder, torch.zeros(1600), 25, 1, "smooth")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fps"):
        AudioWindows(encoder, torch.zeros(1600), 0, 1)
    with pytest.raises(ValueError, match="step 1"):
        AudioWindows(encoder, torch.zeros(16000), 25, 25)[::2]
