"""Looking at what a network has learnt: the same sampling as inference does, without guidance."""

import torch
from torch import nn

from latentsync.backends.predictor import UNetPredictor
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import SamplerOptions, WindowCondition, denoise
from latentsync.face.compositing.masks import latent_mask
from latentsync.training.unet.latent_windows import LatentWindows, WindowEncoder
from latentsync.training.unet.sampling import sample_windows
from tests.models.builders import golden_vae, small_unet
from tests.training.unet_windows import batch, fake_audio_windows, mask

MASK = latent_mask(mask())[:1]


def windows(*ids: int) -> LatentWindows:
    return WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(*ids))


class Perfect(nn.Module):
    """Knows the answer and is always asked with the right conditions."""

    def __init__(self, asked: LatentWindows) -> None:
        super().__init__()
        self.asked = asked
        self.timesteps: list[int] = []

    def forward(self, sample, timestep, audio):
        assert torch.equal(sample[:, 4:], self.asked.conditions(MASK)) and torch.equal(audio, self.asked.audio)
        self.timesteps.append(int(timestep))
        return self.asked.clean


def test_a_perfect_network_gives_the_truth() -> None:
    asked = windows(1, 2)
    network, schedule = Perfect(asked), NoiseSchedule(prediction_type="sample")
    found = sample_windows(network, asked, MASK, schedule, steps=5, seed=3)
    assert network.timesteps == schedule.timesteps(5)
    # The schedule ends a step short of clean, with a hundredth of noise left.
    torch.testing.assert_close(found, asked.clean, atol=0.15, rtol=0)


def test_it_is_the_sampling_of_inference() -> None:
    network, asked, schedule = small_unet(), windows(4), NoiseSchedule()
    found = sample_windows(network, asked, MASK, schedule, steps=3, seed=9)
    first = torch.randn(1, 4, 1, *MASK.shape[1:], generator=torch.Generator().manual_seed(9))
    condition = WindowCondition(
        mask=MASK[None, :, None].expand(1, 1, found.shape[2], -1, -1),
        masked_latents=asked.masked,
        ref_latents=asked.reference,
        audio=asked.audio,
    )
    with torch.no_grad():
        noise = first.expand(found.shape)
        expected = denoise(
            UNetPredictor(network), noise, condition, schedule, SamplerOptions(steps=3, guidance_scale=1.0)
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_windows_are_sampled_alike_alone_and_together() -> None:
    network, schedule = small_unet(), NoiseSchedule()
    both = sample_windows(network, windows(1, 2), MASK, schedule, 2, seed=0)
    alone = sample_windows(network, windows(2), MASK, schedule, 2, seed=0)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    other = sample_windows(network, windows(2), MASK, schedule, 2, seed=1)
    assert (other - alone).abs().max() > 0.1
