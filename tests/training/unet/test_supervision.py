"""Judges of the decoded picture: what they are shown, and whom they teach."""

import pytest
import torch
from torch import nn

from latentsync.errors import ConfigError
from latentsync.losses.perceptual import LaplacianLoss
from latentsync.losses.sync import SyncLoss
from latentsync.losses.trepa import TrepaLoss
from latentsync.models.video_mae import VideoMae, VideoMaeSpec
from latentsync.training.unet.latent_windows import LatentWindows, WindowEncoder, decode_windows
from latentsync.training.unet.supervision import Supervision
from tests.models.builders import golden_vae
from tests.training.unet_windows import FRAMES, SIDE, batch, fake_audio_windows, mask, small_syncnet, small_task

ALL = {"sync": 0.05, "perceptual": 0.1, "trepa": 10.0, "pixel": 0.5}


def windows() -> LatentWindows:
    return WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(1, 2))


def all_judges() -> Supervision:
    supervision = small_task({"sync": 1.0, "perceptual": 1.0, "pixel": 1.0}).supervision
    spec = VideoMaeSpec(image_size=28, frames=FRAMES, patch_size=14, width=16, depth=1, heads=2, mlp_width=16)
    critics = nn.ModuleDict({**supervision.critics, "trepa": TrepaLoss(VideoMae(spec), 28)})
    return Supervision(supervision.vae, ALL, critics, supervision.importance)


def test_each_term_reaches_the_estimate_and_nothing_else() -> None:
    supervision, truth = all_judges(), windows()
    estimate = (truth.clean + 0.3 * torch.randn_like(truth.clean)).requires_grad_()
    terms = supervision.terms(estimate, truth)
    assert set(terms) == set(ALL)
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term(), estimate, retain_graph=True)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, name
    assert not any(each.requires_grad for each in [*supervision.vae.parameters(), *supervision.critics.parameters()])


def test_a_perfect_estimate_has_the_error_of_the_autoencoder_only() -> None:
    supervision, truth = all_judges(), windows()
    with torch.no_grad():
        found = {name: float(term()) for name, term in supervision.terms(truth.clean, truth).items()}
        pictures = decode_windows(supervision.vae, truth.clean, 2)
        error = (pictures - truth.gt_pixel_values).abs()[..., mask()[0] == 0].mean()
    assert found["pixel"] == pytest.approx(float(error), rel=1e-4)
    assert found["perceptual"] == pytest.approx(float(LaplacianLoss()(pictures, truth.gt_pixel_values)), rel=1e-4)


def test_where_only_latents_are_kept_they_are_the_truth() -> None:
    supervision, truth = all_judges(), windows()
    alone = LatentWindows(**{**vars(truth), "gt_pixel_values": None})
    with torch.no_grad():
        terms = supervision.terms(truth.clean, alone)
        assert [float(terms[name]()) for name in ("perceptual", "trepa", "pixel")] == pytest.approx([0.0] * 3, abs=1e-6)


def test_latents_are_judged_by_a_syncnet_of_latents() -> None:
    syncnet = small_syncnet(latents=True)
    critics = nn.ModuleDict({"sync": SyncLoss(syncnet, None)})
    supervision = Supervision(golden_vae(), {"sync": 0.05}, critics, torch.ones(1), in_pixels=False)
    truth = windows()
    estimate = truth.clean.clone().requires_grad_()
    (term,) = supervision.terms(estimate, truth).values()
    seen, heard = syncnet(truth.clean.transpose(1, 2).flatten(1, 2), truth.mel)
    assert term().item() == pytest.approx(float(-(seen * heard).sum(1).clamp(1e-5, 1).log().mean()), rel=1e-4)
    assert torch.autograd.grad(term(), estimate)[0].abs().max() > 0


def test_terms_without_weight_cost_nothing() -> None:
    supervision = Supervision(golden_vae(), {"sync": 0.0, "pixel": 0.0}, nn.ModuleDict(), torch.ones(1))
    assert supervision.weights == {} and supervision.terms(torch.zeros(0), windows()) == {}


@pytest.mark.parametrize(
    ("weights", "in_pixels", "message"),
    [({"sync": 1.0}, True, "can judge"), ({"taste": 1.0}, True, "can judge"), ({"pixel": 1.0}, False, "only the term")],
)
def test_judges_that_are_not_there_are_named(weights, in_pixels, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Supervision(golden_vae(), weights, nn.ModuleDict(), torch.ones(1), in_pixels)


def test_the_region_of_the_pixel_term_is_the_repainted_one() -> None:
    supervision, truth = small_task({"pixel": 1.0}).supervision, windows()
    assert supervision.importance.shape == (1, 1, 1, SIDE, SIDE)
    outside = LatentWindows(**{**vars(truth), "gt_pixel_values": truth.gt_pixel_values + mask()[:, None]})
    with torch.no_grad():
        pair = [supervision.terms(truth.clean, each)["pixel"]() for each in (truth, outside)]
    assert float(pair[0]) == pytest.approx(float(pair[1]))
