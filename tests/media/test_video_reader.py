"""Reading: frame order and timing, rotation, odd sizes, bit depth, color, backward reading, damage, bounded memory."""

import subprocess
import sys
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from latentsync.errors import MediaError
from latentsync.media import video_reader
from latentsync.media.color import ColorTags
from latentsync.media.video_reader import VideoReader
from tests.media.clips import Clip, make_clip, number_of, numbered, steady

LONG_GOP = {"crf": "18", "preset": "ultrafast", "g": "250", "bf": "3"}


def numbers(reader):
    return [number_of(frame.pixels) for frame in reader]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "plain.mp4", Clip(steady(60), options=LONG_GOP))


def test_every_frame_is_read_once_in_order(plain):
    reader = VideoReader(plain)
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(60))
    assert [number_of(frame.pixels) for frame in frames] == list(range(60))
    assert frames[0].pixels.shape == (96, 128, 3) and frames[0].pixels.dtype == np.uint8
    assert frames[0].pixels.flags.c_contiguous and frames[0].pixels.flags.writeable
    assert reader.warnings == []


def test_two_iterations_do_not_disturb_each_other(plain):
    reader = VideoReader(plain)
    pairs = islice(zip(reader, islice(reader, 10, None)), 20)
    assert [(number_of(a.pixels), number_of(b.pixels)) for a, b in pairs] == [(i, i + 10) for i in range(20)]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (50, 25, [2 * i for i in range(30)]),
        (60, 30, [2 * i for i in range(30)]),
        (25, 50, [i // 2 for i in range(120)]),
        (Fraction(30000, 1001), Fraction(30000, 1001), list(range(60))),
    ],
)
def test_rate_conversion_follows_timestamps(tmp_path, source, target, expected):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(60, source)))
    assert numbers(VideoReader(path, Fraction(target))) == expected


def test_millisecond_timestamps_lose_no_frame(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", Clip(steady(60, 60), time_base=Fraction(1, 1000)))
    assert numbers(VideoReader(path, Fraction(60))) == list(range(60))
    assert numbers(VideoReader(path, Fraction(30))) == list(range(0, 60, 2))


def test_variable_rate_is_resampled_as_a_player_would(tmp_path):
    # Frames 0..9 at 30 fps, frame 10 held for half a second, then 30 fps again.
    times = steady(11, 30) + [Fraction(10, 30) + Fraction(1, 2) + Fraction(i, 30) for i in range(10)]
    path = make_clip(tmp_path / "vfr.mp4", Clip(times, rate=Fraction(30)))
    assert numbers(VideoReader(path, Fraction(30))) == list(range(11)) + [10] * 14 + list(range(11, 21))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_tag_is_applied(tmp_path, rotation):
    path = make_clip(tmp_path / "turned.mp4", Clip(steady(3), rotation=rotation))
    reader = VideoReader(path)
    upright = next(iter(VideoReader(make_clip(tmp_path / "upright.mp4", Clip(steady(3)))))).pixels
    turned = next(iter(reader)).pixels
    # The tag counts counter-clockwise, as numpy does.
    assert np.array_equal(turned, np.rot90(upright, rotation // 90))
    assert (reader.info.height, reader.info.width) == turned.shape[:2]
    assert reader.info.rotation == -rotation % 360
    assert [f.index for f in reader.frames_backward(2)] == [2, 1, 0]


def test_odd_size_is_kept(tmp_path):
    path = make_clip(tmp_path / "odd.mp4", Clip(steady(3), size=(131, 97), pix_fmt="yuv444p"))
    pixels = next(iter(VideoReader(path))).pixels
    assert pixels.shape == (97, 131, 3)
    assert np.abs(pixels.astype(int) - numbered(0, 131, 97)).mean() < 3


def test_ten_bit_hevc_is_read(tmp_path):
    options = {"crf": "4", "preset": "ultrafast", "x265-params": "log-level=error"}
    clip = Clip(steady(12), codec="libx265", pix_fmt="yuv420p10le", options=options)
    reader = VideoReader(make_clip(tmp_path / "ten.mp4", clip))
    assert reader.info.bit_depth == 10 and reader.info.codec == "hevc"
    frames = list(reader)
    assert [number_of(f.pixels) for f in frames] == list(range(12))
    assert np.abs(frames[5].pixels.astype(int) - numbered(5, 128, 96)).mean() < 4


@pytest.mark.parametrize(
    "tags",
    [ColorTags(m, r, p, t) for m, p, t in [(1, 1, 1), (5, 5, 6), (6, 6, 6), (9, 9, 14)] for r in (1, 2)]
    + [ColorTags(), ColorTags(range=2)],
)
def test_colors_follow_the_tags(tmp_path, tags):
    options = {"crf": "1", "preset": "ultrafast"}
    reader = VideoReader(make_clip(tmp_path / "c.mp4", Clip(steady(2), pix_fmt="yuv444p", color=tags, options=options)))
    assert reader.info.color == tags
    difference = next(iter(reader)).pixels.astype(int) - numbered(0, 128, 96)
    assert np.abs(difference).mean() < 1.0


def test_bt709_and_bt601_reference_values():
    """Pure colors computed by the formulas of the standards, not by our own inverse."""
    import av
    from av.video.reformatter import VideoReformatter

    from latentsync.media.color import to_rgb

    for tags, (luma, blue, red) in {ColorTags(1, 1): (63, 102, 240), ColorTags(6, 1): (81, 90, 240)}.items():
        planes = np.concatenate([np.full(64, luma), np.full(16, blue), np.full(16, red)]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(planes.reshape(12, 8), format="yuv420p")
        pixels = to_rgb(frame, tags, VideoReformatter())
        assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_backward_reading_equals_reversed_forward_reading(tmp_path, monkeypatch, codec, suffix):
    options = {"crf": "20", "preset": "ultrafast", "g": "40", "bf": "3"}
    if codec == "libx265":
        options = {"crf": "20", "preset": "medium", "x265-params": "log-level=error:keyint=40:open-gop=1:bframes=4"}
    path = make_clip(tmp_path / f"clip{suffix}", Clip(steady(100), codec=codec, options=options))
    monkeypatch.setattr(video_reader, "_MAX_CHUNK_BYTES", 9 * 128 * 96 * 3 // 2)
    reader = VideoReader(path)
    forward = [frame.pixels for frame in reader]
    backward = list(reader.frames_backward(90))
    assert [frame.index for frame in backward] == list(range(90, -1, -1))
    assert all(np.array_equal(frame.pixels, forward[frame.index]) for frame in backward)


def test_backward_reading_with_converted_and_variable_rate(tmp_path):
    times = steady(20, 30) + [Fraction(1) + Fraction(i, 20) for i in range(20)]
    path = make_clip(tmp_path / "vfr.mp4", Clip(times, rate=Fraction(30), options=LONG_GOP))
    reader = VideoReader(path, Fraction(25))
    forward = numbers(reader)
    assert [number_of(f.pixels) for f in reader.frames_backward(len(forward) - 1)] == forward[::-1]


def test_backward_reading_of_a_stream_without_index(tmp_path):
    path = make_clip(tmp_path / "raw.h264", Clip(steady(30), options=LONG_GOP))
    reader = VideoReader(path, Fraction(25))
    forward = numbers(reader)
    assert forward == list(range(30))
    assert [number_of(f.pixels) for f in reader.frames_backward(28)] == forward[:-1][::-1]


@pytest.mark.parametrize(("suffix", "flags"), [(".mkv", {}), (".mp4", {"movflags": "frag_keyframe+empty_moov"})])
def test_truncated_file_is_read_up_to_the_damage(tmp_path, suffix, flags):
    whole = make_clip(tmp_path / f"whole{suffix}", Clip(steady(100), options={"crf": "1", "g": "10"}, muxing=flags))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    reader = VideoReader(cut)
    found = numbers(reader)
    # The decoder may conceal the truncated frame with the content of its neighbor.
    assert found[:-2] == list(range(len(found) - 2)) and 30 <= len(found) <= 80
    # Fragmented mp4 has no total duration, so only the Matroska header reveals that something is missing.
    assert bool(reader.warnings) == (suffix == ".mkv")


def test_truncated_mp4_with_leading_index_warns(tmp_path):
    from latentsync.media.video_writer import VideoWriter

    whole = tmp_path / "whole.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(whole, 128, 96, Fraction(25)) as writer:
        for index in range(100):
            pixels = numbered(index, 128, 96)
            pixels[48:] = rng.integers(0, 255, (48, 128, 3))
            writer.write(pixels)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    reader = VideoReader(cut)
    found = numbers(reader)
    assert found[:30] == list(range(30)) and len(found) < 80
    assert len(reader.warnings) >= 1 and "could be read" in " ".join(reader.warnings)
    assert [f.index for f in reader.frames_backward(len(found) - 1)] == list(range(len(found)))[::-1]


def test_damage_in_the_middle_does_not_end_the_video(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", Clip(steady(100), options={"crf": "1", "g": "10"}))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    reader = VideoReader(path)
    found = numbers(reader)
    assert len(found) == 100 and found[:35] == list(range(35)) and found[-20:] == list(range(80, 100))


def test_rate_must_be_positive(plain):
    with pytest.raises(MediaError, match="rate above 0"):
        VideoReader(plain, Fraction(0))


MEASURE = """
import resource, sys
from fractions import Fraction
from latentsync.media.timeline import TimelineReader
for _ in TimelineReader(sys.argv[1], Fraction(25), int(sys.argv[2])):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_length(tmp_path):
    options = {"crf": "40", "preset": "ultrafast", "g": "250"}
    path = make_clip(tmp_path / "long.mp4", Clip(steady(160), size=(1280, 720), options=options))

    def peak(count):
        command = [sys.executable, "-c", MEASURE, str(path), str(count)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # All 320 frames as RGB would take 840 MiB; ping-pong buffers only one chunk.
    assert peak(320) - peak(20) < 300
