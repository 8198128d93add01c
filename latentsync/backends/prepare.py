"""Preparing loaded networks for their device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentsync.backends import cuda
from latentsync.backends.cpu_unet import optimize_unet_for_cpu
from latentsync.backends.cuda_graphs import GraphPredictor
from latentsync.backends.placement import Placement
from latentsync.backends.predictor import UNetPredictor
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.runtime.allocator import keep_large_blocks

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL


def prepare_networks(
    unet: UNet3DConditionModel, vae: AutoencoderKL, window_length: int, placement: Placement
) -> UNetPredictor:
    """Prepare both networks for their device, in place; returns the predictor that runs the U-Net there.

    Raises:
        ConfigError: adapters or hooks are attached to the U-Net that the device's backend would bypass.
    """
    if vae.device.type == "cpu":
        from latentsync.backends.cpu import arrange_for_cpu

        arrange_for_cpu(vae)
        optimize_unet_for_cpu(unet)
        keep_large_blocks()
    if vae.device.type != "cuda":
        return UNetPredictor(unet, split_guidance=placement.low)
    cuda.keep_compiled_code()
    cuda.prepare_unet(unet, copies=not placement.low, compiled=placement.compiled)
    cuda.prepare_vae(vae, compiled=placement.compiled)
    if placement.low:  # captured graphs keep their activations' memory for themselves
        return UNetPredictor(unet, split_guidance=True)
    return GraphPredictor(unet, window_length, compiled=placement.compiled)
