"""The population: training and held-out people are disjoint, and a face detector can measure every base face."""

import random
from typing import get_args

import numpy as np
import pytest
import torch

from latentsync.synthetic.head.appearance import Identity
from latentsync.synthetic.head.blend import BLENDS, load_face
from latentsync.synthetic.head.portrait import INNER_LOWER, INNER_UPPER, load_portrait
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.population import (
    HELD_OUT_FACES,
    HELD_OUT_VARIANTS,
    is_held_out_shape,
    sample_person,
    sample_person_scene,
    sample_setting,
    sample_speaker,
    sample_speaker_utterance,
)
from latentsync.synthetic.speech.text import Split
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, OPEN


def test_training_and_held_out_people_have_no_face_shape_or_voice_in_common():
    generator = random.Random(0)
    people = {split: [sample_person(generator, split) for _ in range(60)] for split in ("train", "held_out")}
    assert {person.portrait for person in people["held_out"]} == set(HELD_OUT_FACES)
    assert {person.portrait for person in people["train"]} == set(BLENDS) - set(HELD_OUT_FACES)
    assert all(map(is_held_out_shape, people["held_out"])) and not any(map(is_held_out_shape, people["train"]))
    voices = {
        split: {sample_speaker(generator, split).voice.split("+")[1] for _ in range(200)} for split in get_args(Split)
    }
    assert voices["held_out"] == set(HELD_OUT_VARIANTS) and not voices["train"] & voices["held_out"]


def test_camera_noise_is_rare_and_weak():
    generator = random.Random(1)
    people = [sample_person(generator, "train") for _ in range(100)]
    scenes = [sample_person_scene(generator, person) for person in people]
    assert max(person.grain for person in people) <= 0.02
    assert max(scene.noise for scene in scenes) <= 0.01 and sum(scene.noise > 0 for scene in scenes) < 40


def test_color_mixing_maps_grey_to_itself():
    matrix = np.array(sample_setting(random.Random(2), "train", 5, 25.0).scene.mixing)
    np.testing.assert_allclose(matrix @ np.ones(3), 1, atol=1e-9)
    assert np.abs(matrix - np.eye(3)).max() > 1e-3


def test_speech_lasts_at_least_the_requested_time():
    generator = random.Random(3)
    speaker = sample_speaker(generator, "train")
    assert sample_speaker_utterance(generator, speaker, "train", 4.0).seconds >= 4.0


@pytest.mark.parametrize("name", BLENDS)
def test_blends_lie_between_the_portraits(name):
    blend = BLENDS[name]
    face, head = load_face(name), load_portrait(blend.head)
    moved = np.abs(face.points - head.points)[:, :2].max()
    assert (moved < 1e-3) == (blend.geometry == 0)
    assert np.isfinite(face.image).all() and face.image.min() >= 0 and face.image.max() <= 1
    # Hair, clothes and background come from the head portrait, whatever the face.
    border = np.ones((head.size, head.size), bool)
    border[60:-60, 60:-60] = False
    assert np.abs(face.image - head.image)[border].mean() < 0.02
    upper, lower = (face.points[list(lip[1:-1]), 1] for lip in (INNER_UPPER, INNER_LOWER))
    assert (lower - upper).min() > -2


@pytest.mark.parametrize("name", ["collins_75", *HELD_OUT_FACES])
def test_face_mesh_measures_the_reported_opening(name):
    mediapipe = pytest.importorskip("mediapipe")
    mouth = np.zeros((8, len(MOUTH_PARAMETERS)), np.float32)
    mouth[:, OPEN] = np.linspace(0, 0.9, 8)
    state = HeadState(mouth, np.zeros((8, 9), np.float32), Identity(portrait=name, smoothness=0.4))
    renderer = HeadRenderer("cpu")
    with torch.inference_mode():
        frames = (renderer.render(state, 384) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    measured = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for frame in frames:
            found = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            assert found, f"no face in a frame of {name}"
            points = np.array([(point.x, point.y) for point in found[0].landmark])
            measured.append(np.linalg.norm(points[13] - points[14]) / np.linalg.norm(points[33] - points[263]))
    assert np.corrcoef(measured, renderer.mouth_opening(state).numpy())[0, 1] > 0.95


def test_clothes_of_a_blend_keep_still_during_speech():
    renderer = HeadRenderer("cpu")
    mouth = np.zeros((2, len(MOUTH_PARAMETERS)), np.float32)
    mouth[1, OPEN] = 1.0
    state = HeadState(mouth, np.zeros((2, 9), np.float32), Identity(portrait="hopper_75"))
    shut, wide = renderer.render(state, 192)
    change = (shut - wide).abs().amax(0)
    assert float(change[150:].max()) < 0.02 and float(change[:70].max()) < 0.02
    assert float(change[90:125, 75:125].max()) > 0.2
