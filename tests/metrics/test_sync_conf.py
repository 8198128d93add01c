"""Sign and magnitude of the offset, sync confidence, and the input of the network."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.errors import ConfigError, MediaError
from latentsync.metrics.sync_conf import (
    SyncMeter,
    offset_and_confidence,
    similarity_curve,
    syncnet_input,
)
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec, cosine
from tests.golden_files import load_golden
from tests.metrics.level_network import FRAMES, level_meter


def random_clip(frames: int, audio_delay: int) -> tuple[Tensor, Tensor]:
    """Frames of random brightness, and a mel whose loudness follows the brightness ``audio_delay`` frames later."""
    levels = torch.rand(frames + 200, generator=torch.Generator().manual_seed(frames))
    images = (levels[100 : 100 + frames] * 255).byte()[:, None, None, None].expand(-1, 3, 4, 4)
    columns = torch.arange(frames * 80 // 25)
    loudness = levels[100 - audio_delay + columns * 25 // 80]
    return images, loudness.expand(80, -1)


@pytest.mark.parametrize("delay", [-15, -4, 0, 1, 9, 15])
def test_offset_is_positive_for_early_audio(delay: int):
    score = level_meter().score(*random_clip(90, delay))
    assert score.av_offset == -delay
    assert score.sync_conf > 0.3
    assert score.windows == 75


def test_cosine_is_the_similarity_without_a_shift():
    assert level_meter().score(*random_clip(60, 0)).cosine > 0.95
    assert level_meter().score(*random_clip(60, 5)).cosine < 0.7


def test_unrelated_audio_has_low_confidence():
    frames, _ = random_clip(120, 0)
    _, mel = random_clip(121, 0)
    assert level_meter().score(frames, mel).sync_conf < 0.15


def test_batch_size_does_not_change_the_score():
    clip = random_clip(50, 3)
    assert level_meter(batch_size=1).score(*clip).curve == pytest.approx(level_meter(batch_size=64).score(*clip).curve)


@pytest.mark.parametrize("frames", [10, 30])
def test_clip_shorter_than_the_shifts_is_rejected(frames: int):
    with pytest.raises(MediaError, match="at least 31 frames"):
        level_meter().score(*random_clip(frames, 0))


def test_audio_shorter_than_the_shifts_is_rejected():
    frames, mel = random_clip(60, 0)
    with pytest.raises(MediaError, match="60 frames with 90 mel columns"):
        level_meter().score(frames, mel[:, :90])


def test_latent_space_syncnet_is_rejected():
    network = SimpleNamespace(spec=SimpleNamespace(visual_encoder=SimpleNamespace(in_channels=64)))
    with pytest.raises(ConfigError, match="64 input channels"):
        SyncMeter(cast(StableSyncNet, network))


@pytest.mark.parametrize("name", ["sync_offset_audio_late3", "sync_offset_audio_early4", "sync_offset_unrelated"])
def test_offset_and_confidence_match_the_published_evaluation(name: str):
    case = load_golden(name)
    offset, confidence = offset_and_confidence(-case.outputs["mean_dists"].numpy())
    assert offset == int(case.outputs["av_offset"])
    assert confidence == pytest.approx(float(case.outputs["confidence"]), abs=1e-4)


def test_pairs_beyond_the_end_are_ignored():
    embeds = torch.eye(6)
    curve = similarity_curve(embeds, embeds, shifts=2)
    assert curve == pytest.approx(np.array([0, 0, 1, 0, 0]))
    with pytest.raises(MediaError, match="more than 6 windows"):
        similarity_curve(embeds, embeds, shifts=6)


def test_network_input_is_the_lower_half_of_every_frame():
    frames = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8)
    images = syncnet_input(frames)
    assert images.shape == (2, 9, 4, 8)
    assert images[1, 5, 0, 3].item() == pytest.approx(frames[1, 1, 2, 4, 3].item() / 127.5 - 1, abs=1e-6)
    assert syncnet_input(frames, lower=False).shape == (2, 9, 8, 8)


def test_pair_cosines_match_the_network():
    spec = StableSyncNetSpec(
        SyncNetEncoderSpec(3 * FRAMES, (32, 32), (2, (2, 4))), SyncNetEncoderSpec(1, (32, 32), ((10, 13), (4, 2)))
    )
    network = StableSyncNet(spec).eval()
    frames = torch.randint(0, 256, (3, FRAMES, 3, 16, 16), dtype=torch.uint8)
    mel = torch.randn(3, 1, 80, 52)
    with torch.no_grad():
        expected = cosine(*network(syncnet_input(frames), mel))
    assert SyncMeter(network, batch_size=2).pair_cosines(frames, mel).tolist() == pytest.approx(expected.tolist())
