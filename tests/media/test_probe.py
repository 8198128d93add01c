"""Probing: properties of valid files, clear errors for invalid ones."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from latentsync.errors import MediaError
from latentsync.media.color import ColorTags
from latentsync.media.probe import probe_audio, probe_video
from latentsync.media.video_reader import VideoReader
from tests.media.clips import Clip, make_clip, steady, write_tone


def test_properties_of_a_plain_clip(tmp_path):
    tags = ColorTags(1, 1, 1, 1)
    info = probe_video(make_clip(tmp_path / "clip.mp4", Clip(steady(50), color=tags, tone_seconds=2)))
    assert (info.width, info.height, info.fps, info.variable_rate) == (128, 96, Fraction(25), False)
    assert (info.frame_estimate, info.rotation, info.codec, info.pix_fmt) == (50, 0, "h264", "yuv420p")
    assert info.duration == pytest.approx(2.0, abs=0.05)
    assert info.has_audio and info.color == tags and info.bit_depth == 8 and info.sample_aspect_ratio == 1


def test_properties_of_real_clips(samples_dir):
    info = probe_video(samples_dir / "woman_1080p25_hevc.mp4")
    assert (info.width, info.height, info.fps, info.codec, info.frame_estimate) == (
        1080,
        1920,
        Fraction(25),
        "hevc",
        250,
    )
    assert probe_audio(samples_dir / "woman_1080p25_hevc.mp4").sample_rate == 44100
    assert not probe_video(samples_dir / "drawn_man_704x1216p25_h264.mp4").has_audio


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60, Fraction(25, 2)])
@pytest.mark.parametrize(("suffix", "tick"), [(".mp4", Fraction(1, 90000)), (".mkv", Fraction(1, 1000))])
def test_constant_rates_are_recognised(tmp_path, rate, suffix, tick):
    path = make_clip(tmp_path / f"clip{suffix}", Clip(steady(90, rate), time_base=tick, rate=Fraction(rate)))
    assert probe_video(path).fps == rate


def test_uneven_frames_near_thirty_count_as_thirty(tmp_path):
    gaps = np.random.default_rng(0).integers(2880, 3180, 120)
    times = [Fraction(int(t), 90000) for t in np.concatenate([[0], gaps.cumsum()])]
    info = probe_video(make_clip(tmp_path / "phone.mp4", Clip(times, rate=Fraction(30))))
    assert info.fps == 30


def test_dropped_frames_do_not_lower_the_rate(tmp_path):
    kept = [i for i in range(120) if i % 5 in (0, 1, 3)]
    info = probe_video(make_clip(tmp_path / "call.mp4", Clip([Fraction(i, 30) for i in kept], rate=Fraction(30))))
    assert info.fps == 30 and info.variable_rate


def test_still_image_is_a_video_of_one_frame(tmp_path):
    with av.open(str(tmp_path / "face.png"), "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8))))
        container.mux(stream.encode(None))
    frames = list(VideoReader(tmp_path / "face.png"))
    assert len(frames) == 1 and (frames[0].pixels == 99).all()


def fake_files(folder):
    """Write invalid inputs; returns, by name, a word that the error message must contain."""
    (folder / "text.mp4").write_text("This is not a video.\n" * 500)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(bytes(20000))
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile 'clip.mp4'\n")
    whole = make_clip(folder / "clip.mp4", Clip(steady(20)))
    (folder / "no_index.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return {
        "missing.mp4": "no such file",
        ".": "folder",
        "text.mp4": "text.mp4",
        "empty.mp4": "empty",
        "zeros.mp4": "zeros.mp4",
        "list.mp4": "list.mp4",
        "no_index.mp4": "cut off",
    }


@pytest.mark.parametrize("probe", [probe_video, probe_audio])
def test_bad_files_are_refused(tmp_path, probe):
    for name, word in fake_files(tmp_path).items():
        with pytest.raises(MediaError, match=word):
            probe(tmp_path / name)


def test_audio_file_is_refused_as_video(tmp_path):
    path = write_tone(tmp_path / "speech.wav", 1.0)
    assert probe_audio(path).duration == pytest.approx(1.0)
    with pytest.raises(MediaError, match="no video stream"):
        probe_video(path)


def test_cover_art_is_not_a_video_stream(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        container.mux(cover.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        probe_video(path)


def test_video_without_audio_track_is_refused_as_audio(tmp_path):
    with pytest.raises(MediaError, match="no audio track"):
        probe_audio(make_clip(tmp_path / "silent.mp4", Clip(steady(5))))


def test_audio_of_zero_length_is_refused(tmp_path):
    with wave.open(str(tmp_path / "zero.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(MediaError, match="zero length"):
        probe_audio(tmp_path / "zero.wav")
