"""Losses on a clean estimate: what they compare, and what gets a gradient."""

from typing import Any

import pytest
import torch

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.losses.inputs import LossInputs
from latentsync.losses.objective import Objective
from latentsync.losses.perceptual import LaplacianLoss
from latentsync.losses.terms import PixelTerm, PyramidTerm, SyncTerm, TrepaTerm
from latentsync.models.video_mae import VideoMae, VideoMaeSpec
from latentsync.training.unet.latent_windows import LatentWindows, WindowEncoder, decode_windows
from latentsync.training.unet.supervision import Supervision
from tests.models.builders import golden_vae
from tests.training.unet_windows import FRAMES, SIDE, batch, fake_audio_windows, mask, small_syncnet


def windows() -> LatentWindows:
    return WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(1, 2))


def all_losses() -> Supervision:
    spec = VideoMaeSpec(image_size=28, frames=FRAMES, patch_size=14, width=16, depth=1, heads=2, mlp_width=16)
    losses: dict[str, Any] = {
        "sync": SyncTerm(small_syncnet(), SIDE),
        "perceptual": PyramidTerm(),
        "pixel": PixelTerm(),
    }
    losses["trepa"] = TrepaTerm(VideoMae(spec), 28)
    return Supervision(golden_vae(), Objective(losses, dict.fromkeys(losses, 1.0)))


def inputs_of(supervision: Supervision, estimate: torch.Tensor, truth: LatentWindows) -> LossInputs:
    """What losses read where the clean estimate is given."""
    flat = torch.ones(len(estimate))
    return LossInputs(
        prediction=estimate,
        target=truth.clean,
        window_weights=flat,
        weight_map=torch.ones(estimate.shape[-2:]),
        pred_latents=estimate,
        gt_latents=truth.clean,
        noisy_latents=truth.clean,
        noise=torch.zeros_like(truth.clean),
        timesteps=flat.long(),
        alpha_bar=NoiseSchedule().alphas_cumprod[flat.long()][:, None, None, None, None],
        audio_embeds=truth.audio,
        mel=truth.mel,
        mask=mask()[:1],
        decode=supervision.decode_with_gradient,
        load_gt_pixels=lambda: supervision.gt_pixels(truth),
    )


def test_each_loss_reaches_the_estimate_and_nothing_else() -> None:
    supervision, truth = all_losses(), windows()
    estimate = (truth.clean + 0.3 * torch.randn_like(truth.clean)).requires_grad_()
    inputs = inputs_of(supervision, estimate, truth)
    for name, loss in supervision.objective.losses.items():
        (gradient,) = torch.autograd.grad(loss(inputs), estimate, retain_graph=True)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, name
        if isinstance(loss, torch.nn.Module):
            assert not loss.training and not any(each.requires_grad for each in loss.parameters())
    assert not any(each.requires_grad for each in supervision.vae.parameters())


def test_frames_are_decoded_once_for_all_losses_and_not_at_all_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    supervision, truth, decoded = all_losses(), windows(), []

    def counted(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(len(latents))
        return decode_windows(supervision.vae, latents, 4)

    monkeypatch.setattr(supervision, "decode_with_gradient", counted)
    supervision.objective(inputs_of(supervision, truth.clean, truth))
    assert decoded == [2]
    on_latents = Objective({"sync": SyncTerm(small_syncnet(latents=True), None)}, {"sync": 1.0})
    on_latents(inputs_of(supervision, truth.clean, truth))
    assert decoded == [2]


def test_a_perfect_estimate_has_the_error_of_the_autoencoder_only() -> None:
    supervision, truth = all_losses(), windows()
    with torch.no_grad():
        found = supervision.objective(inputs_of(supervision, truth.clean, truth))
        images = decode_windows(supervision.vae, truth.clean, 2)
        error = (images - truth.gt_pixel_values).abs()[..., mask()[0] == 0].mean()
    assert float(found["pixel"]) == pytest.approx(float(error), rel=1e-4)
    assert float(found["perceptual"]) == pytest.approx(float(LaplacianLoss()(images, truth.gt_pixel_values)), rel=1e-4)


def test_where_only_latents_are_kept_they_are_the_truth() -> None:
    supervision, truth = all_losses(), windows()
    alone = LatentWindows(**{**vars(truth), "gt_pixel_values": None})
    with torch.no_grad():
        found = supervision.objective(inputs_of(supervision, truth.clean, alone))
    assert [float(found[name]) for name in ("perceptual", "trepa", "pixel")] == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_syncnet_on_latents_scores_latents() -> None:
    syncnet, truth = small_syncnet(latents=True), windows()
    supervision = Supervision(golden_vae(), Objective({"sync": SyncTerm(syncnet, None)}, {"sync": 0.05}))
    estimate = truth.clean.clone().requires_grad_()
    losses = supervision.objective(inputs_of(supervision, estimate, truth))
    vision, audio = syncnet(truth.clean.transpose(1, 2).flatten(1, 2), truth.mel)
    expected = float(-(vision * audio).sum(1).clamp(1e-5, 1).log().mean())
    assert losses["sync"].item() == pytest.approx(expected, rel=1e-4)
    assert torch.autograd.grad(losses["total"], estimate)[0].abs().max() > 0


def test_the_region_of_the_pixel_loss_is_the_repainted_one() -> None:
    supervision, truth = all_losses(), windows()
    outside = LatentWindows(**{**vars(truth), "gt_pixel_values": truth.gt_pixel_values + mask()[:, None]})
    with torch.no_grad():
        pair = [PixelTerm()(inputs_of(supervision, truth.clean, each)) for each in (truth, outside)]
    assert float(pair[0]) == pytest.approx(float(pair[1]))
