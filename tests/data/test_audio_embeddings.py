"""Whisper features of clips: published windows, container timing, and cache keys."""

import pytest
import torch

from latentsync.data.audio_embeddings import ClipAudioEmbeddings, encoder_fingerprint
from latentsync.data.clips.clip_reader import ClipReader
from latentsync.errors import DataError
from latentsync.whisper.audio_windows import AudioWindows, gather_windows, window_rows
from tests.data.corpus import frames, good_clip
from tests.media.shifted_sound import shift_sound, write_clip
from tests.whisper.micro import micro_encoder


@pytest.fixture(scope="module")
def encoder():
    return micro_encoder()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good_clip(tmp_path_factory.mktemp("clips") / "00001.mp4", count=60, seed=1)


def test_windows_equal_published(golden):
    case = golden("crop_overlap")
    length, start, count = (case.attrs[name] for name in ("length", "start", "num_frames"))
    rows = window_rows(start, start + count, 25, length)
    case.check("frame_index", rows.int())
    case.check("windows", gather_windows(torch.arange(length * 5 * 2).reshape(length, 5, 2).float(), rows))


def test_windows_equal_those_of_the_clip_audio(encoder, clip):
    embeddings = ClipAudioEmbeddings(encoder)
    waveform = torch.from_numpy(ClipReader().waveform(clip))
    expected = AudioWindows(encoder, waveform, 25, 60)
    for start in (0, 17, 44):
        windows = embeddings.windows(str(clip), start, 16)
        assert windows.shape == (16, 50, 16)
        torch.testing.assert_close(windows, expected[start : start + 16], atol=1e-5, rtol=0)
    assert torch.equal(embeddings.windows(clip, 70, 3)[1], embeddings.windows(clip, 70, 3)[2])


def test_shifted_audio_gives_shifted_windows(encoder, clip, tmp_path):
    moved = shift_sound(clip, tmp_path / "moved.mp4", 0.2)
    waveform = torch.from_numpy(ClipReader().waveform(clip))
    silence_first = torch.cat([torch.zeros(3200), waveform])
    expected = AudioWindows(encoder, silence_first, 25, 60)[20:36]
    moved_error, unmoved_error = (
        float((ClipAudioEmbeddings(encoder).windows(path, 20, 16) - expected).abs().mean()) for path in (moved, clip)
    )
    # Attention spans the whole clip, including the encoder delay in the first 64 ms, which differs.
    assert moved_error < unmoved_error / 3


def test_cache_is_keyed_by_clip_content_and_encoder(encoder, clip, tmp_path):
    other = good_clip(tmp_path / "other" / "00001.mp4", count=60, seed=2)
    cache = tmp_path / "cache"
    fresh = {path: ClipAudioEmbeddings(encoder).windows(path, 4, 8) for path in (clip, other)}
    for _ in range(2):
        embeddings = ClipAudioEmbeddings(encoder, cache)
        assert all(torch.equal(embeddings.windows(path, 4, 8), windows) for path, windows in fresh.items())
    assert len(list(cache.rglob("*.npy"))) == 2
    untrained = micro_encoder(n_audio_layer=4)
    assert encoder_fingerprint(untrained) != encoder_fingerprint(encoder) == encoder_fingerprint(micro_encoder())
    assert not torch.equal(ClipAudioEmbeddings(untrained, cache).windows(clip, 4, 8), fresh[clip])
    assert len(list(cache.rglob("*.npy"))) == 3


def test_memory_is_bounded(encoder, clip, tmp_path):
    clips = [clip, *(good_clip(tmp_path / f"{number}.mp4", count=60, seed=number) for number in range(3))]
    one = ClipAudioEmbeddings(encoder).features(clip).nbytes
    embeddings = ClipAudioEmbeddings(encoder, max_bytes=2 * one)
    for path in (*clips, *clips):
        embeddings.windows(path, 0, 4)
        assert embeddings.cached_bytes <= 2 * one


def test_half_precision_round_trips_through_the_disk_cache(clip, tmp_path):
    half = micro_encoder().to(torch.bfloat16)
    first = ClipAudioEmbeddings(half, tmp_path).windows(clip, 0, 8)
    again = ClipAudioEmbeddings(half, tmp_path).windows(clip, 0, 8)
    assert first.dtype == again.dtype == torch.bfloat16
    assert torch.equal(first, again)


def test_clip_without_audio_raises_data_error(encoder, tmp_path):
    with pytest.raises(DataError, match="no audio"):
        ClipAudioEmbeddings(encoder).windows(write_clip(tmp_path / "a.mp4", frames(5), None), 0, 4)
