"""Preparing loaded networks for their device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentsync.backends import cuda
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
    """Make both networks ready for their device, in place; returns the way to run the U-Net there."""
    if vae.device.type == "cpu":
        from latentsync.backends.cpu import arrange_for_cpu

        arrange_for_cpu(vae)
        keep_large_blocks()
    if vae.device.type != "cuda":
        return UNetPredictor(unet, split_guidance=placement.low)
    cuda.keep_compiled_code()
    cuda.pack_unet(unet, copies=not placement.low, compiled=placement.compiled)
    cuda.prepare_vae(vae, compiled=placement.compiled)
    if placement.low:  # recorded graphs keep their activations' memory for themselves
        return UNetPredictor(unet, split_guidance=True)
    return GraphPredictor(unet, window_length, compiled=placement.compiled)
