"""Clips on disk, and agreement of the face detector with their ground truth."""

import json
import random
import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.synthetic.clip import ClipFormat, sample_state, sample_utterance, write_clip
from latentsync.synthetic.head.appearance import Identity, sample_motion
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.speech.tts import synthesize
from latentsync.synthetic.speech.visemes import mouth_curve

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def renderer():
    return HeadRenderer("cpu")


def test_video_audio_and_ground_truth_of_a_clip_have_the_same_length(tmp_path, renderer):
    spoken = synthesize("Mama.", "en-us")
    state = sample_state(spoken, random.Random(0), num_frames=10)
    truth = write_clip(tmp_path / "a b.mp4", state, spoken, renderer, ClipFormat(size=128))
    with av.open(str(tmp_path / "a b.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
        assert container.streams.audio
    with wave.open(str(tmp_path / "a b.wav")) as audio:
        assert (audio.getframerate(), audio.getnframes()) == (16000, 6400)
    stored = json.loads((tmp_path / "a b.json").read_text())
    assert stored["text"] == "Mama." and stored["phonemes"][0][0] == "m"
    assert len(stored["mouth"]) == len(stored["mouth_opening"]) == len(stored["control_points"]) == 10
    assert stored["mouth_opening"] == truth["mouth_opening"]


def test_ground_truth_dub_changes_only_the_mouth(renderer):
    one, two = (sample_utterance(random.Random(seed), sentences=1) for seed in (1, 2))
    state = sample_state(one, random.Random(3), num_frames=20)
    dubbed = state.with_mouth(mouth_curve(two.phonemes, 20, 25))
    assert dubbed.identity == state.identity and np.array_equal(dubbed.motion, state.motion)
    assert not np.allclose(dubbed.mouth, state.mouth)
    controls = renderer.control_points(state) - renderer.control_points(dubbed)
    assert float(controls.abs().max()) < 2.0


def test_face_mesh_measures_the_ground_truth_opening(renderer):
    mediapipe = pytest.importorskip("mediapipe")
    spoken = synthesize("Maybe my father has a big purple boat, oh my!", "en-us+m3")
    count = round(spoken.seconds * 25)
    whole = HeadState(mouth_curve(spoken.phonemes, count, 25), sample_motion(count, 25, random.Random(4)), Identity())
    subset = np.arange(0, count, 3)
    state = replace(whole, mouth=whole.mouth[subset], motion=whole.motion[subset])
    frames = (renderer.render(state, 512) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    measured = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for frame in frames:
            found = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            assert found, "no face in a synthetic frame"
            points = np.array([(point.x, point.y) for point in found[0].landmark])
            measured.append(np.linalg.norm(points[13] - points[14]) / np.linalg.norm(points[33] - points[263]))
    assert np.corrcoef(measured, renderer.mouth_opening(state).numpy())[0, 1] > 0.95


def test_demo_assets_have_the_documented_format():
    with av.open(str(ASSETS / "demo_video.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (768, 768) and stream.average_rate == 25
        assert sum(1 for _ in container.decode(video=0)) == 120
        assert container.streams.audio
    with wave.open(str(ASSETS / "demo_speech.wav")) as audio:
        assert audio.getsampwidth() == 2 and audio.getnframes() / audio.getframerate() == pytest.approx(4.4, abs=0.001)
        samples = np.frombuffer(audio.readframes(audio.getnframes()), np.int16)
    assert np.abs(samples).max() > 5000
    assert all((ASSETS / name).stat().st_size < 1_500_000 for name in ("demo_video.mp4", "demo_speech.wav"))
