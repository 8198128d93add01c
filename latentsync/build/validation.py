"""The video that a U-Net in training makes at every validation."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from latentsync.backends.predictor import UNetPredictor
from latentsync.build.networks import FrozenNetworks
from latentsync.build.paths import find_file
from latentsync.build.pipeline import build_face_detector, model_defaults
from latentsync.build.specs import build_schedule
from latentsync.config.load import Config
from latentsync.errors import LatentSyncError
from latentsync.face.compositing.masks import load_mask
from latentsync.pipelines.generator import DiffusionGenerator
from latentsync.pipelines.job import LipsyncJob
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine
from latentsync.runtime.resources import REPOSITORY

logger = logging.getLogger(__name__)

VideoMaker = Callable[[nn.Module, Path, int], None]
"""(U-Net, folder, step): writes a video into the folder."""


def build_video_maker(config: Config, networks: FrozenNetworks, device: torch.device) -> VideoMaker | None:
    """Lip-sync ``data.val_video_path`` to ``data.val_audio_path`` with the U-Net as it is; None where none is named.

    A video that cannot be made, say because no face is found or the GPU's memory is full, is a warning: it does not end
    a training.

    Raises:
        ConfigError: a named file does not exist.
    """
    data = config.data
    if not data.val_video_path or not data.val_audio_path:
        return None
    video = find_file(data.val_video_path, "data.val_video_path")
    audio = find_file(data.val_audio_path, "data.val_audio_path")

    def make(network: nn.Module, folder: Path, step: int) -> None:
        try:
            pipeline = _pipeline(config, networks, network, device)
            folder.mkdir(parents=True, exist_ok=True)
            pipeline(LipsyncJob(video, audio, folder / f"val_video_{step}.mp4", overwrite=True))
        except (LatentSyncError, torch.OutOfMemoryError) as error:
            logger.warning("No validation video at step %d: %s", step, error)

    return make


def _pipeline(config: Config, networks: FrozenNetworks, network: nn.Module, device: torch.device) -> LipsyncEngine:
    dtype = next(networks.vae.parameters()).dtype
    assert networks.audio_encoder is not None
    mask = load_mask(config.data.mask_image_path, config.data.resolution)
    # A copy in the precision of inference, so that nothing of the one in training is touched.
    unet = copy.deepcopy(network).to(device, dtype).eval()
    left, right = config.data.audio_feat_length
    return LipsyncEngine(
        generator=DiffusionGenerator(
            UNetPredictor(unet),  # type: ignore[arg-type]  # the task's network is one
            networks.vae,
            mask,
            build_schedule(config),
            keep_detail=config.run.keep_detail,
        ),
        audio_encoder=networks.audio_encoder,
        make_detector=build_face_detector("auto", REPOSITORY / "checkpoints", device),
        mask=mask,
        device=device,
        window_length=config.data.num_frames,
        audio_feat_length=(left, right),
        defaults=model_defaults(config),
        settings={"model": "in training", "device": str(device), "dtype": str(dtype).removeprefix("torch.")},
    )
