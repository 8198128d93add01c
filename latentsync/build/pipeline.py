"""Builds the inference engine from a configuration and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentsync.backends.placement import Placement
from latentsync.backends.prepare import prepare_networks
from latentsync.build.presets import DETECTORS, ModelFiles
from latentsync.build.specs import build_schedule, build_unet_spec
from latentsync.config.load import Config, load_config
from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import load_mask
from latentsync.face.detection.detector import FaceDetector
from latentsync.models.unet.load import load_unet
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.vae import load_vae
from latentsync.models.weights.lora import merge_lora
from latentsync.models.weights.state_dict import copy_network
from latentsync.pipelines.generator import DiffusionGenerator, FaceGenerator
from latentsync.pipelines.job import ModelDefaults
from latentsync.pipelines.lipsync_pipeline import LipsyncEngine
from latentsync.pipelines.sharded import ShardedGenerator
from latentsync.whisper.audio_encoder import load_audio_encoder

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL


def build_face_detector(kind: str, root: Path, device: torch.device) -> Callable[[], FaceDetector]:
    """A factory of face detectors.

    Args:
        kind: "mediapipe" (its models are part of the package and may be used commercially), "insightface" (as in the
            published system; its model files are for research only), or "auto", which is mediapipe.
        root: the checkpoint folder, which holds InsightFace's models.
        device: where InsightFace runs.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in DETECTORS:
        raise ConfigError(f"Unknown face detector {kind!r}; expected one of {', '.join(DETECTORS)}")
    if kind == "insightface":
        from latentsync.face.detection.insightface_detector import InsightfaceDetector

        return lambda: InsightfaceDetector(root / "auxiliary", str(device))
    from latentsync.face.detection.mediapipe_detector import MediapipeDetector

    return MediapipeDetector


def build_pipeline(files: ModelFiles, placement: Placement, make_detector: Callable[[], FaceDetector]) -> LipsyncEngine:
    """Load all networks and connect them.

    Args:
        files: configuration and weights.
        placement: devices, precision and memory of everything but decoding, detection and encoding.
        make_detector: see `build_face_detector`.

    Raises:
        ConfigError: the configuration cannot be used.
        CheckpointError: weights are damaged or do not fit the configuration.
    """
    config = load_config(files.config_path)
    spec = build_unet_spec(config.model)
    device, dtype = placement.devices[0], placement.dtype
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs belong to the current device
    unet, vae = load_unet(spec, files.unet, device, dtype), load_vae(files.vae, device, dtype)
    if files.lora is not None:
        merge_lora(unet, files.lora)
    copies = [(copy_network(unet, other), copy_network(vae, other)) for other in placement.devices[1:]]
    generators = [_generator(config, *networks, placement) for networks in [(unet, vae), *copies]]
    resources = ExitStack()
    generator: FaceGenerator = generators[0]
    if len(generators) > 1:
        generator = resources.enter_context(closing(ShardedGenerator(generators)))
    audio_encoder = load_audio_encoder(files.audio_encoder, device, dtype, spec.cross_attention_dim)
    left, right = config.data.audio_feat_length
    return LipsyncEngine(
        generator=generator,
        audio_encoder=audio_encoder,
        make_detector=make_detector,
        mask=load_mask(config.data.mask_image_path, config.data.resolution),
        device=device,
        window_length=config.data.num_frames,
        audio_feat_length=(left, right),
        defaults=model_defaults(config),
        settings=_settings(files, placement),
        resources=resources,
    )


def model_defaults(config: Config) -> ModelDefaults:
    """What the configured model is sampled with where a job leaves it open."""
    return ModelDefaults(config.run.inference_steps, config.run.guidance_scale, config.run.seed)


def _settings(files: ModelFiles, placement: Placement) -> dict[str, Any]:
    """The part of a report that states how the engine was built."""
    return {
        "model": files.name,
        "config": str(files.config_path),
        "unet": str(files.unet),
        "lora": None if files.lora is None else str(files.lora),
        "device": placement.names,
        "dtype": str(placement.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "compiled": placement.compiled,
        "memory": placement.memory,
        "window_batch_size": placement.window_batch_size,
    }


def _generator(
    config: Config, unet: UNet3DConditionModel, vae: AutoencoderKL, placement: Placement
) -> DiffusionGenerator:
    """The generator for the device that holds the networks."""
    return DiffusionGenerator(
        prepare_networks(unet, vae, config.data.num_frames, placement),
        vae,
        load_mask(config.data.mask_image_path, config.data.resolution),
        build_schedule(config),
        vae_batch=placement.vae_batch,
        keep_detail=config.run.keep_detail,
        window_batch_size=placement.window_batch_size,
    )
