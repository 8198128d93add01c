"""The renderer: rendered frames agree with the ground truth it reports."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from latentsync.errors import ConfigError
from latentsync.face.geometry.affine import face_template
from latentsync.synthetic.head.appearance import (
    MOTION_COLUMNS,
    Identity,
    Scene,
    sample_identity,
    sample_motion,
    sample_scene,
)
from latentsync.synthetic.head.portrait import PORTRAITS, load_portrait
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, OPEN

COLUMNS = len(MOTION_COLUMNS)


@pytest.fixture(scope="module")
def renderer():
    return HeadRenderer("cpu")


def still(opening, portrait="collins", **changes):
    mouth = np.zeros((len(opening), len(MOUTH_PARAMETERS)), np.float32)
    mouth[:, OPEN] = opening
    return HeadState(mouth, np.zeros((len(opening), COLUMNS), np.float32), Identity(portrait=portrait), **changes)


@pytest.mark.parametrize("portrait", PORTRAITS)
def test_closed_lips_hide_the_teeth_and_open_ones_show_them(renderer, portrait):
    state = still([0.0, 0.7], portrait)
    painted = replace(state, identity=replace(state.identity, teeth=(0.0, 1.0, 0.0)))
    change = (renderer.render(state) - renderer.render(painted)).abs().amax((1, 2, 3))
    assert float(change[0]) < 0.03 < 0.4 < float(change[1])


def test_reported_opening_grows_with_the_mouth_and_is_zero_when_closed(renderer):
    opening = renderer.mouth_opening(still(np.linspace(0, 1, 11)))
    assert float(opening[0]) < 0.005 and bool((opening.diff() > 0).all()) and 0.2 < float(opening[-1]) < 0.32


def test_only_the_lower_face_changes_with_the_mouth(renderer):
    shut, wide = renderer.render_aligned(still([0.0, 0.9]), 128)
    change = (shut - wide).abs().mean(0)
    # Brows and hair are fixed only to a fraction of a pixel, which is visible in sharp hair.
    assert float(change[:45].mean()) < 0.015 and float(change[70:110, 40:90].mean()) > 0.06


def test_aligned_crop_puts_the_control_points_near_the_template(renderer):
    generator = random.Random(5)
    state = replace(still([0.1] * 3), motion=sample_motion(3, 25, generator), identity=sample_identity(generator))
    crop = torch.from_numpy(face_template(256)) + 0.5
    square = torch.stack([crop[:, 0] * 256 / 210 - 0.5, crop[:, 1] * 256 / 280 - 0.5, torch.ones(3)], dim=-1)
    frame = torch.einsum("tij,kj->tki", renderer._crop_to_frame(state, 256, 0.0), square)
    # A similarity transform cannot map three points of every face exactly onto the template.
    assert float((frame - renderer.control_points(state)).norm(dim=-1).max()) < 20


def test_aligned_crop_equals_the_crop_of_the_whole_frame(renderer):
    state = still([0.4])
    crop = renderer.render_aligned(state, 128)
    positions = torch.einsum(
        "tij,hwj->thwi",
        renderer._crop_to_frame(state, 128, 0.0),
        torch.stack(
            [*torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="xy"), torch.ones(128, 128)], -1
        ),
    )
    frame = renderer.render(state)
    sampled = torch.nn.functional.grid_sample(frame, positions * (2 / 767) - 1, align_corners=True)
    assert float((sampled - crop).abs().mean()) < 0.012


def test_mirrored_identity_is_the_flipped_image(renderer):
    plain = still([0.3])
    flipped = replace(plain, identity=replace(plain.identity, mirrored=True))
    # At this size the lattice of the inverse warp is symmetric.
    torch.testing.assert_close(renderer.render(flipped, 193), renderer.render(plain, 193).flip(-1), atol=0.02, rtol=0)
    aligned, mirrored = (renderer.render_aligned(state, 128) for state in (plain, flipped))
    # The template is off-center by half a pixel, so the two crops do not coincide exactly.
    assert float((mirrored - aligned.flip(-1)).abs().mean()) < 0.4 * float((mirrored - aligned).abs().mean())


def test_rendering_a_clip_in_parts_gives_the_same_frames(renderer):
    generator = random.Random(2)
    state = HeadState(
        np.random.default_rng(0).uniform(0, 0.5, (4, 7)).astype(np.float32),
        sample_motion(4, 25, generator),
        sample_identity(generator),
        replace(sample_scene(generator), noise=0.0),
    )
    whole = renderer.render_aligned(state, 64)
    parts = torch.cat([renderer.render_aligned(state.frames(i, i + 1), 64) for i in range(4)])
    torch.testing.assert_close(whole, parts, atol=1e-3, rtol=0)


def test_parts_of_a_clip_have_different_noise(renderer):
    state = still([0.0, 0.0], scene=Scene(noise=0.05, seed=3))
    first, second = (renderer.render(state.frames(i, i + 1), 64) for i in range(2))
    assert float((first - second).abs().mean()) > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_random_people_give_finite_images_that_differ(renderer, seed):
    generator = random.Random(seed)
    state = replace(still([0.0, 0.6]), identity=sample_identity(generator), scene=sample_scene(generator))
    images = renderer.render_aligned(state, 96, jitter=1.0)
    others = renderer.render_aligned(still([0.0, 0.6]), 96)
    assert bool(torch.isfinite(images).all()) and 0 <= float(images.min()) and float(images.max()) <= 1
    assert float((images - others).abs().mean()) > 0.02


def test_motion_is_smooth_and_blinks():
    motion = sample_motion(250, 25, random.Random(1))
    assert motion.shape == (250, COLUMNS)
    assert np.abs(np.diff(motion[:, :6], axis=0)).max() < 0.05
    assert motion[:, MOTION_COLUMNS.index("blink")].max() > 0.4


def test_rendering_takes_together_gives_the_same_frames_as_one_by_one(renderer):
    generator = random.Random(3)
    motion, identity, scene = sample_motion(3, 25, generator), sample_identity(generator), sample_scene(generator)
    curves = np.random.default_rng(1).uniform(0, 0.6, (2, 3, 7)).astype(np.float32)
    states = [HeadState(curve, motion, identity, replace(scene, noise=0.02)) for curve in curves]
    together = renderer.render_takes(states, 64, 1.5)
    assert together.shape == (2, 3, 3, 64, 64)
    for frames, state in zip(together, states):
        torch.testing.assert_close(frames, renderer.render_aligned(state, 64, 1.5), atol=1e-3, rtol=0)


def test_crop_of_a_scene_does_not_depend_on_the_mouth(renderer):
    shut, wide = still([0.0]), still([0.9])
    torch.testing.assert_close(renderer._crop_to_frame(shut, 64, 2.0), renderer._crop_to_frame(wide, 64, 2.0))


def test_renders_in_inference_mode(renderer):
    with torch.inference_mode():
        assert renderer.render_aligned(still([0.2]), 32).shape == (1, 3, 32, 32)


def test_curves_of_different_lengths_are_rejected():
    with pytest.raises(ConfigError, match="same length"):
        HeadState(np.zeros((3, 7), np.float32), np.zeros((2, COLUMNS), np.float32))


def test_unknown_portrait_is_rejected_by_name():
    with pytest.raises(ConfigError, match="'nobody' is incomplete"):
        load_portrait("nobody")
