"""Audio reading: exact values and durations, any container, rejected inputs."""

import wave
from fractions import Fraction

import numpy as np
import pytest

from latentsync.errors import MediaError
from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.audio.reader import audio_seconds, load_speech, read_audio
from latentsync.media.video_writer import VideoWriter
from tests.media.clips import Clip, make_clip, steady, tone, write_tone


def test_sixteen_kilohertz_mono_is_read_bit_for_bit(tmp_path):
    path = write_tone(tmp_path / "speech.wav", 1.25)
    speech = load_speech(path)
    assert speech.waveform.dtype == np.float32 and speech.seconds == Fraction(5, 4) and speech.warnings == ()
    assert np.array_equal(speech.waveform, tone(1.25)[0].astype(np.float32) / 32768)
    assert np.array_equal(read_audio(path), speech.waveform)


def test_resampling_keeps_length_pitch_and_level(tmp_path):
    for rate, channels in ((44100, 2), (48000, 1), (8000, 1)):
        speech = load_speech(write_tone(tmp_path / f"{rate}.wav", 1.0, rate, channels))
        assert speech.seconds == 1 and abs(len(speech.waveform) - 16000) <= 1
        middle = slice(4000, 12000)
        assert np.abs(speech.waveform[middle] - tone(1.0)[0][middle] / 32768).max() < 0.01


def test_samples_are_quantized_to_sixteen_bits(tmp_path):
    scaled = read_audio(write_tone(tmp_path / "a.wav", 0.5, 44100, 2)) * 32768
    assert np.array_equal(scaled, np.round(scaled)) and np.abs(scaled).max() > 1000


def test_audio_of_a_video_has_no_aac_padding(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(20), tone_seconds=0.8))
    assert audio_seconds(path) == Fraction(4, 5)
    assert len(read_audio(path)) == 12800


def test_truncated_wav_is_read_up_to_its_end(tmp_path):
    whole = write_tone(tmp_path / "whole.wav", 2.0)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 0.9 < load_speech(cut).seconds < 1.1


@pytest.fixture
def damaged(tmp_path):
    path = write_tone(tmp_path / "clip.m4a", 3.0)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 600] = np.random.default_rng(0).bytes(600)
    path.write_bytes(data)
    return path


def test_undamaged_part_of_aac_is_kept(damaged):
    assert load_speech(damaged).seconds > 2


def test_damage_already_reported_is_not_reported_again_by_the_muxer(damaged, tmp_path, caplog):
    warnings = list(load_speech(damaged).warnings)
    track = AudioTrack(damaged, warnings=warnings)
    with VideoWriter(tmp_path / "out.mp4", 64, 64, Fraction(25), track) as writer:
        for _ in range(80):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert len(warnings) == 1
    assert [record.getMessage() for record in caplog.records] == warnings


def test_unusable_audio_is_refused(tmp_path):
    with wave.open(str(tmp_path / "zero.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(MediaError, match="zero length"):
        read_audio(tmp_path / "zero.wav")
    with pytest.raises(MediaError, match="no audio track"):
        read_audio(make_clip(tmp_path / "silent.mp4", Clip(steady(3))))
    with pytest.raises(MediaError, match="no such file"):
        read_audio(tmp_path / "missing.wav")


def test_real_speech_has_the_expected_length(samples_dir):
    speech = load_speech(samples_dir / "speech_c.wav")
    assert speech.seconds == 8 and speech.waveform.shape == (128000,)
