"""Writing: exact length, color, audio, rejected inputs, and no files left behind after errors."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest

from latentsync.errors import ConfigError, MediaError
from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.audio.reader import audio_seconds, read_audio
from latentsync.media.color import ColorTags
from latentsync.media.probe import probe_audio, probe_video
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import VideoWriter, WriterOptions
from tests.media.clips import Clip, make_clip, number_of, numbered, steady, tone, write_tone

SIZE = (128, 96)


def psnr(first, second):
    error = np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def write(path, count=10, fps=Fraction(25), size=SIZE, audio=None, options=None):
    with VideoWriter(path, size[0], size[1], fps, audio, options) as writer:
        for index in range(count):
            writer.write(numbered(index, *size))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".m4v"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_frames_rate_and_audio_are_exact(tmp_path, suffix, fps):
    track = AudioTrack(write_tone(tmp_path / "speech.wav", 2.0, 44100, 2))
    path = write(tmp_path / f"out{suffix}", 37, fps, audio=track)
    info = probe_video(path)
    assert (info.width, info.height, info.fps) == (*SIZE, fps)
    assert [number_of(f.pixels) for f in VideoReader(path)] == list(range(37))
    sound = probe_audio(path)
    assert (sound.sample_rate, sound.channels, sound.codec) == (44100, 2, "flac" if suffix == ".mkv" else "aac")
    assert abs(audio_seconds(path) - 37 / fps) < Fraction(1, 16000)
    # No offset: the decoded audio coincides with the original.
    decoded = read_audio(path)
    middle = slice(4000, 16000)
    assert np.abs(decoded[middle] - tone(2.0)[0][middle] / 32768).max() < 0.02


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_short_audio_is_padded_with_silence(tmp_path, suffix):
    path = write(tmp_path / f"out{suffix}", 50, audio=AudioTrack(write_tone(tmp_path / "a.wav", 1.0)))
    decoded = read_audio(path)
    assert audio_seconds(path) == 2
    assert np.abs(decoded[4000:12000]).max() > 0.2 and np.abs(decoded[17500:]).max() < 0.001


@pytest.mark.parametrize("rate", [7000, 11025, 22050, 96000, 192000])
def test_sample_rate_is_kept_or_raised_to_one_supported_by_aac(tmp_path, rate):
    path = write(tmp_path / "out.mp4", 25, audio=AudioTrack(write_tone(tmp_path / "a.wav", 1.0, rate)))
    assert probe_audio(path).sample_rate == {7000: 8000, 192000: 96000}.get(rate, rate)
    assert audio_seconds(path) == 1


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (2, 2), (6, 6), (8, 2)])
@pytest.mark.parametrize("source", ["a.wav", "a.m4a"])
def test_channels_are_kept_up_to_six(tmp_path, channels, kept, source):
    track = AudioTrack(write_tone(tmp_path / source, 1.0, 48000, channels))
    path = write(tmp_path / "out.mp4", 25, audio=track)
    assert probe_audio(path).channels == kept
    assert audio_seconds(path) == 1
    assert np.abs(read_audio(path)[4000:12000]).max() > 0.1


def test_audio_of_a_video_file_can_be_the_driving_audio(tmp_path):
    source = make_clip(tmp_path / "source.mp4", Clip(steady(30), tone_seconds=1.2))
    path = write(tmp_path / "out.mp4", 30, audio=AudioTrack(source))
    assert audio_seconds(path) == Fraction(6, 5)


@pytest.mark.parametrize("tags", [ColorTags(), ColorTags(1, 1, 1, 1), ColorTags(1, 2, 1, 1), ColorTags(9, 1, 9, 16)])
def test_color_tags_and_colors_survive(tmp_path, tags):
    path = write(tmp_path / "out.mp4", 5, options=WriterOptions(color=tags))
    assert probe_video(path).color == tags
    for frame in VideoReader(path):
        assert psnr(frame.pixels, numbered(frame.index, *SIZE)) > 32


@pytest.mark.parametrize("name", ["woman_1080p25_hevc.mp4", "drawn_man_704x1216p25_h264.mp4"])
def test_default_quality_exceeds_42_db_on_real_clips(tmp_path, samples_dir, name):
    source = VideoReader(samples_dir / name)
    frames = [frame.pixels for frame in islice(source, 12)]
    info = source.info
    with VideoWriter(
        tmp_path / "out.mp4", info.width, info.height, info.fps, options=WriterOptions(color=info.color)
    ) as writer:
        for pixels in frames:
            writer.write(pixels)
    written = VideoReader(tmp_path / "out.mp4")
    assert written.info.color == info.color
    assert min(psnr(a, b.pixels) for a, b in zip(frames, written)) >= 42


def test_odd_size_is_padded_not_cropped(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 131, 97, Fraction(25)) as writer:
        assert writer.encoded_size == (132, 98)
        for index in range(5):
            writer.write(numbered(index, 131, 97))
    for frame in VideoReader(tmp_path / "out.mp4"):
        assert frame.pixels.shape == (98, 132, 3)
        assert psnr(frame.pixels[:97, :131], numbered(frame.index, 131, 97)) > 32


def test_odd_size_is_exact_in_444(tmp_path):
    path = write(tmp_path / "out.mp4", 5, size=(131, 97), options=WriterOptions(pix_fmt="yuv444p"))
    assert next(iter(VideoReader(path))).pixels.shape == (97, 131, 3)


def test_ten_bit_and_hevc_on_request(tmp_path):
    path = write(tmp_path / "out.mp4", options=WriterOptions(codec="libx265", pix_fmt="yuv420p10le"))
    info = probe_video(path)
    assert (info.codec, info.bit_depth) == ("hevc", 10)


def test_keyframe_interval_is_respected(tmp_path):
    path = write(tmp_path / "out.mp4", 20, options=WriterOptions(keyframe_interval=8, threads=1))
    with av.open(str(path)) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys == [0, 8, 16]
    with pytest.raises(ConfigError, match="keyframe_interval -1"):
        WriterOptions(keyframe_interval=-1)


def test_sample_aspect_ratio_is_kept(tmp_path):
    path = write(tmp_path / "out.mp4", options=WriterOptions(sample_aspect_ratio=Fraction(4, 3)))
    assert probe_video(path).sample_aspect_ratio == Fraction(4, 3)


def test_options_out_of_range_are_refused():
    for bad in ({"crf": 60}, {"preset": "best"}, {"codec": "mpeg4"}, {"pix_fmt": "rgb24"}):
        with pytest.raises(ConfigError):
            WriterOptions(**bad)


def test_wrong_frame_shape_or_closed_writer_raises_value_error(tmp_path):
    with pytest.raises(ValueError, match="expected"), VideoWriter(tmp_path / "o.mp4", *SIZE, Fraction(25)) as writer:
        writer.write(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ValueError, match="not open"):
        VideoWriter(tmp_path / "o.mp4", *SIZE, Fraction(25)).write(numbered(0, *SIZE))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["two words.mp4", 'it\'s "$(touch x)" `y`; &.mp4', "видео-é-影.mp4", "a:b%d.mp4", "-o.mp4"]
)
def test_any_file_name_works(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkdir("in $(x)")
    track = AudioTrack(write_tone(tmp_path / "in $(x)" / f"{name}.wav", 0.4))
    write(name, audio=track)
    assert [number_of(f.pixels) for f in VideoReader(name)] == list(range(10))
    assert sorted(os.listdir(tmp_path)) == sorted(["in $(x)", name])


def test_file_appears_only_once_complete(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, *SIZE, Fraction(25)) as writer:
        for index in range(5):
            writer.write(numbered(index, *SIZE))
        assert not path.exists()
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_error_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="boom"), VideoWriter(tmp_path / "o.mp4", *SIZE, Fraction(25)) as writer:
        writer.write(numbered(0, *SIZE))
        raise RuntimeError("boom")
    with (
        pytest.raises(MediaError, match="no frame was generated"),
        VideoWriter(tmp_path / "o.mp4", *SIZE, Fraction(25)),
    ):
        pass
    silent = make_clip(tmp_path / "silent.mp4", Clip(steady(3)))
    with pytest.raises(MediaError, match="no audio track"):
        write(tmp_path / "o.mp4", audio=AudioTrack(silent))
    assert os.listdir(tmp_path) == ["silent.mp4"]


def test_inputs_are_never_overwritten(tmp_path):
    source = make_clip(tmp_path / "in.mp4", Clip(steady(3), tone_seconds=0.2))
    os.symlink(source, tmp_path / "link.mp4")
    os.link(source, tmp_path / "hard.mp4")
    (tmp_path / "folder").mkdir()
    before = source.read_bytes()
    for name in ("in.mp4", "link.mp4", "hard.mp4", "folder/../in.mp4"):
        with pytest.raises(MediaError, match="one of the inputs"):
            VideoWriter(tmp_path / name, *SIZE, Fraction(25), options=WriterOptions(inputs=(source,), overwrite=True))
        with pytest.raises(MediaError, match="one of the inputs"):
            VideoWriter(tmp_path / name, *SIZE, Fraction(25), AudioTrack(source), WriterOptions(overwrite=True))
    assert source.read_bytes() == before


def test_bad_output_paths_are_refused(tmp_path):
    (tmp_path / "is_folder.mp4").mkdir()
    cases = {"is_folder.mp4": "folder", "out.txt": "extensions", "out": "extensions", "no/such/out.mp4": "not exist"}
    for name, word in cases.items():
        with pytest.raises(MediaError, match=word):
            VideoWriter(tmp_path / name, *SIZE, Fraction(25))
    assert os.listdir(tmp_path) == ["is_folder.mp4"]


def test_existing_file_is_replaced_only_with_overwrite(tmp_path):
    path = write(tmp_path / "out.mp4", 3)
    with pytest.raises(MediaError, match="exists already"):
        write(path, 5)
    write(path, 5, options=WriterOptions(overwrite=True))
    assert len(list(VideoReader(path))) == 5


def test_file_created_in_the_meantime_is_not_replaced(tmp_path):
    path = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match="in the meantime"), VideoWriter(path, *SIZE, Fraction(25)) as writer:
        writer.write(numbered(0, *SIZE))
        path.write_text("mine")
    assert path.read_text() == "mine" and os.listdir(tmp_path) == ["out.mp4"]


@contextmanager
def unprivileged():
    """Drop root's privilege to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_folder_is_refused():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        with unprivileged(), pytest.raises(MediaError, match="may write to"):
            VideoWriter(os.path.join(name, "out.mp4"), *SIZE, Fraction(25))
        assert os.listdir(name) == []
        os.chmod(name, 0o755)


FILL = """
import resource, sys
from fractions import Fraction
import numpy as np
from latentsync.errors import MediaError
from latentsync.media.video_writer import VideoWriter
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], 128, 96, Fraction(25)) as writer:
        for _ in range(int(sys.argv[3])):
            writer.write(noise.integers(0, 255, (96, 128, 3), dtype=np.uint8))
except MediaError as error:
    print(error)
"""


@pytest.mark.parametrize(("limit", "frames"), [(100_000, 200), (0, 5), (3000, 1)])
def test_full_disk_is_reported_and_leaves_no_file(tmp_path, limit, frames):
    command = [sys.executable, "-c", FILL, str(tmp_path / "out.mp4"), str(limit), str(frames)]
    process_result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "free disk space" in process_result.stdout and "out.mp4" in process_result.stdout
    assert os.listdir(tmp_path) == []


ENDLESS = """
import sys
from fractions import Fraction
import numpy as np
from latentsync.media.audio.muxer import AudioTrack
from latentsync.media.video_writer import VideoWriter
with VideoWriter(sys.argv[1], 128, 96, Fraction(25), AudioTrack(sys.argv[2])) as writer:
    while True:
        writer.write(np.zeros((96, 128, 3), np.uint8))
        print("frame", flush=True)
"""


def test_interrupt_leaves_no_file(tmp_path):
    sound = write_tone(tmp_path / "a.wav", 1.0)
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "out.mp4"), str(sound)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # By then the encoder has returned packets and the output file is growing.
    assert [process.stdout.readline() for _ in range(100)] == ["frame\n"] * 100
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert "KeyboardInterrupt" in errors and process.returncode != 0
    assert os.listdir(tmp_path) == ["a.wav"]


def test_two_writers_in_one_folder(tmp_path):
    with (
        VideoWriter(tmp_path / "a.mp4", *SIZE, Fraction(25)) as a,
        VideoWriter(tmp_path / "b.mp4", *SIZE, Fraction(25)) as b,
    ):
        for index in range(6):
            a.write(numbered(index, *SIZE))
            b.write(numbered(index + 100, *SIZE))
    assert [number_of(f.pixels) for f in VideoReader(tmp_path / "a.mp4")] == list(range(6))
    assert [number_of(f.pixels) for f in VideoReader(tmp_path / "b.mp4")] == list(range(100, 106))


def test_memory_does_not_grow_with_length(tmp_path):
    def grown(count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write(tmp_path / f"{count}.mp4", count, size=(640, 360))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    grown(120)
    # 400 frames as RGB would be 270 MiB.
    assert grown(400) < 60 * 1024
