"""Random access to frames: the same frames as sequential reading, for any GOP structure."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import MediaError
from latentsync.media.frame_index import index_frames
from latentsync.media.video_reader import VideoReader
from latentsync.media.window_reader import read_frames
from tests.media.clips import Clip, make_clip, number_of, steady

LAYOUTS = {
    "one keyframe": {"crf": "12", "preset": "veryfast", "g": "250"},
    "short GOPs with B-frames": {"crf": "12", "preset": "medium", "g": "12", "bf": "3"},
    "open GOPs": {"crf": "12", "preset": "medium", "g": "10", "bf": "3", "x264-params": "open-gop=1"},
    "keyframes only": {"crf": "12", "preset": "ultrafast", "g": "1"},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def clip(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("layout") / "clip.mp4"
    make_clip(path, Clip(steady(60), size=(64, 48), options=LAYOUTS[request.param]))
    return index_frames(path), [frame.pixels for frame in VideoReader(path)]


def test_frames_equal_those_of_sequential_reading(clip):
    index, expected = clip
    assert index.count(25) == len(expected) == 60

    @given(numbers=st.lists(st.integers(0, 59), min_size=1, max_size=8))
    def check(numbers):
        for number, pixels in zip(numbers, read_frames(index, numbers, 25)):
            assert np.array_equal(pixels, expected[number])

    check()


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(30000, 1001), Fraction(50), Fraction(12)])
def test_other_rates_are_resampled_by_timestamp(tmp_path, fps):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(60, fps), size=(64, 48)))
    index = index_frames(path)
    expected = [number_of(frame.pixels) for frame in VideoReader(path, Fraction(25))]
    assert index.count(25) == len(expected)
    assert [number_of(pixels) for pixels in read_frames(index, range(len(expected)), 25)] == expected


def test_rotation_is_applied(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(5), size=(64, 48), rotation=90))
    expected = [frame.pixels for frame in VideoReader(path)]
    assert np.array_equal(read_frames(index_frames(path), [3], 25)[0], expected[3])


def test_damaged_frame_is_reported(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(60), size=(64, 48), options={"crf": "4", "g": "1"}))
    index = index_frames(path)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + len(data) // 4] = bytes(len(data) // 4)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"cannot be decoded|damaged"):
        read_frames(index, range(60), 25)


def test_truncated_file_cannot_be_indexed(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", Clip(steady(20), size=(64, 48)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError):
        index_frames(path)


def test_audio_file_cannot_be_indexed(tmp_path):
    from tests.media.clips import write_tone

    with pytest.raises(MediaError, match="no video stream"):
        index_frames(write_tone(tmp_path / "tone.wav", 0.5))


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", Clip(steady(40), size=(64, 48), options={"crf": "12", "g": "10"}))
    cut = tmp_path / "cut.mp4"
    # As "ffmpeg -ss 0.2 ... -c copy" does: decoding starts at the keyframe, display five frames later.
    with av.open(str(whole)) as reader, av.open(str(cut), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                ticks = round(Fraction(1, 5) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, stream
                writer.mux(packet)
    index = index_frames(cut)
    expected = [number_of(frame.pixels) for frame in VideoReader(cut)]
    assert expected[0] == 5
    assert index.count(25) == len(expected) == 35
    assert [number_of(pixels) for pixels in read_frames(index, range(35), 25)] == expected
