"""Audio on the container clock: shifts by timestamps are preserved."""

from fractions import Fraction

import numpy as np
import pytest

from latentsync.errors import MediaError
from latentsync.media.audio.timed_audio import read_timed_audio
from latentsync.media.frame_index import index_frames
from tests.media.shifted_sound import click_track, shift_sound, write_clip

FRAMES = np.zeros((75, 32, 32, 3), np.uint8)


def click_time(path):
    sound = read_timed_audio(path, index_frames(path).start)
    return float(np.abs(sound).argmax()) / 16000


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("shift", [0.2, 0.04, -0.04, -0.2])
def test_a_shifted_track_stays_shifted(tmp_path, rate, shift):
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, click_track(3, 1.0, rate), rate)
    moved = shift_sound(clip, tmp_path / "moved.mp4", shift)
    assert click_time(clip) == pytest.approx(1.0, abs=0.004)
    assert click_time(moved) == pytest.approx(1.0 + shift, abs=0.004)


def test_later_origin_drops_earlier_audio(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, click_track(3, 1.0))
    sound = read_timed_audio(clip, Fraction(3, 4))
    assert float(np.abs(sound).argmax()) / 16000 == pytest.approx(0.25, abs=0.004)
    assert len(sound) == pytest.approx(2.25 * 16000, abs=2)


def test_gap_in_the_track_becomes_silence(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, click_track(3, 2.0))
    holed = tmp_path / "holed.mp4"
    drop_audio(clip, holed, 0.5, 1.5)
    assert click_time(holed) == pytest.approx(2.0, abs=0.004)


def test_track_without_audio_during_the_video_is_refused(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, click_track(3, 1.0))
    with pytest.raises(MediaError, match="no audio during"):
        read_timed_audio(clip, Fraction(10))
    silent = write_clip(tmp_path / "silent.mp4", FRAMES, None)
    with pytest.raises(MediaError, match="no audio track"):
        read_timed_audio(silent, Fraction(0))


def drop_audio(source, target, start, stop):
    """Copy a clip without the audio packets between two times."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            is_sound = given.streams[packet.stream_index].type == "audio"
            if packet.dts is None or (is_sound and start < packet.dts * packet.time_base < stop):
                continue
            packet.stream = streams[packet.stream_index]
            made.mux(packet)
