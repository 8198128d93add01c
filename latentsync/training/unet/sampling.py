"""Sampling many windows at once, to validate a U-Net in training."""

import torch
from torch import Tensor, nn

from latentsync.diffusion.ddim import NoiseSchedule, ddim_step
from latentsync.training.unet.latent_windows import LatentWindows


@torch.no_grad()
def sample_windows(
    network: nn.Module, windows: LatentWindows, mask: Tensor, schedule: NoiseSchedule, steps: int, seed: int
) -> Tensor:
    """DDIM without guidance from one noise draw that all frames of all windows share, as in inference.

    Args:
        network: the U-Net.
        windows: conditions of the samples.
        mask: (1, h, w), 1 = keep.
        schedule: the training noise schedule.
        steps: of DDIM.
        seed: of the draw, which is made on the CPU: the same noise on every device.

    Returns:
        (b, 4, f, h, w) float32 clean, scaled latents.
    """
    device = windows.clean.device
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(windows.clean[:1, :, :1].shape, generator=generator).to(device)
    latents = first.expand(windows.clean.shape)
    fixed = windows.conditions(mask)
    timesteps = torch.tensor(schedule.timesteps(steps), device=device)
    for index, (alpha, alpha_prev) in enumerate(schedule.alpha_pairs(steps)):
        prediction = network(torch.cat([latents, fixed], dim=1), timesteps[index], windows.audio).float()
        latents = ddim_step(latents, schedule.as_noise(prediction, latents, alpha), alpha, alpha_prev)
    return latents
