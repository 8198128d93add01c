"""A whole step of the published stage 2, from frames to the gradient, put together from the package's own parts."""

from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL
from einops import rearrange, repeat
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.noise import mix_noise
from latentsync.face.compositing.masks import latent_mask, prepare_masked_pixels, prepare_pixels
from latentsync.losses.perceptual import PerceptualLoss
from latentsync.losses.reconstruction import noise_prediction_loss
from latentsync.losses.sync import SyncLoss
from latentsync.losses.trepa import TrepaLoss
from latentsync.losses.weighted_sum import weighted_sum
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.vae import decode_latents, encode_latents
from tests.golden_files import Golden, load_golden
from tests.models.builders import golden_syncnet, golden_unet, golden_vae, golden_video_mae


@dataclass
class Step:
    """What one step computes on its way."""

    case: Golden
    unet: UNet3DConditionModel
    found: dict[str, Tensor]
    losses: dict[str, Tensor]


def videos_of(frames: Tensor) -> Tensor:
    return rearrange(frames, "f c h w -> 1 c f h w")


def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return videos_of(encode_latents(vae, pixels))


def take_step(weights: dict[str, float], dtype: torch.dtype) -> Step:
    """The step with these loss weights; `found` gets every tensor that the golden case has."""
    case = load_golden("train_step_t401")
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in case.inputs.items()}
    unet, vae = golden_unet(case).to(dtype), golden_vae().to(dtype)
    schedule = NoiseSchedule()
    target, references = (rearrange(given[f"{name}_frames"], "f h w c -> f c h w") for name in ("gt", "ref"))
    pixels, masked, masks = (tensor.to(dtype) for tensor in prepare_masked_pixels(target, given["mask"]))
    found = {
        "gt_latents": encode(vae, pixels),
        "masked_latents": encode(vae, masked),
        "ref_latents": encode(vae, prepare_pixels(references, case.attrs["resolution"]).to(dtype)),
        "mask_latents": videos_of(latent_mask(masks)),
        "noise": mix_noise(given["shared_raw"], given["individual_raw"], case.attrs["alpha"]),
    }
    alpha = rearrange(schedule.alphas_cumprod[given["timesteps"]].to(dtype), "b -> b 1 1 1 1")
    found["noisy"] = alpha.sqrt() * found["gt_latents"] + (1 - alpha).sqrt() * found["noise"]
    sample = torch.cat([found[name] for name in ("noisy", "mask_latents", "masked_latents", "ref_latents")], dim=1)
    found["pred_noise"] = unet(sample, given["timesteps"], given["audio"])
    found["pred_latents"] = schedule.as_clean(found["pred_noise"], found["noisy"], alpha)
    decoded = videos_of(decode_latents(vae, rearrange(found["pred_latents"], "1 c f h w -> f c h w")))
    found["pred_pixels_frame0"] = decoded[0, :, 0]
    terms = {
        "recon": lambda: noise_prediction_loss(found["pred_noise"], found["noise"]),
        "sync": lambda: SyncLoss(golden_syncnet("syncnet_tiny_weights").to(dtype), 64)(decoded, given["mel"]),
        "trepa": lambda: TrepaLoss(golden_video_mae("videomae_tiny_weights").to(dtype))(decoded, videos_of(pixels)),
    }
    return Step(case, unet, found, weighted_sum(terms, weights))


def check(step: Step, terms: tuple[str, ...]) -> None:
    for name, tensor in step.found.items():
        step.case.check(name, tensor)
    for name in terms:
        # Closer than the case asks for, which would let a TREPA of 0 pass.
        assert step.losses[name].item() == pytest.approx(step.case.outputs[f"{name}_loss"].item(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_step_equals_the_published_one(dtype: torch.dtype) -> None:
    step = take_step({"recon": 1.0, "sync": 0.05, "trepa": 10.0}, dtype)
    check(step, ("recon", "sync", "trepa"))
    step.case.check("total_without_lpips", step.losses["total"][None])
    (gradient,) = torch.autograd.grad(step.losses["total"], step.unet.conv_out.weight)
    step.case.check("grad_conv_out_weight", gradient, atol=1e-4)
    assert gradient.abs().max() > 0.1


def test_step_without_syncnet_equals_the_published_one() -> None:
    check(take_step({"recon": 1.0, "sync": 0.0, "trepa": 10.0}, torch.float32), ("recon", "trepa"))


class Watcher(torch.nn.Module):
    """Stands for LPIPS: keeps the pictures it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.shown = torch.empty(0)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        self.shown = predicted
        return (predicted - target).abs().mean(dim=(1, 2, 3))


def test_perceptual_loss_is_shown_what_the_published_one_is() -> None:
    case, watcher = load_golden("train_step_t401"), Watcher()
    frame = repeat(case.outputs["pred_pixels_frame0"], "c h w -> 1 c f h w", f=1)
    PerceptualLoss(watcher)(frame, torch.zeros_like(frame))
    case.check("lpips_pred_frame0_lower_half", watcher.shown[0], atol=0)
