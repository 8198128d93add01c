"""From configuration and checkpoints to objects: the only place that turns one into the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from latentsync.backends import cuda
from latentsync.backends.cuda_graphs import GraphPredictor
from latentsync.backends.placement import Placement
from latentsync.backends.predictor import UNetPredictor
from latentsync.checkpoints import registry as checkpoints
from latentsync.config.load import Config, load_config
from latentsync.config.sections import ModelConfig, MotionModuleConfig
from latentsync.diffusion.ddim import NoiseSchedule, Prediction
from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import load_mask
from latentsync.face.detection.detector import FaceDetector
from latentsync.models.unet.load import copy_network, load_unet
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.vae import load_vae
from latentsync.pipelines.generator import DiffusionGenerator
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.sharded import ShardedGenerator
from latentsync.runtime.allocator import keep_large_blocks
from latentsync.whisper.audio_encoder import load_audio_encoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
DETECTORS = ("auto", "mediapipe", "insightface")


@dataclass(frozen=True)
class Preset:
    """A model version: its configuration file and the names of its weights in `latentsync.checkpoints.registry`."""

    config: str
    unet: str
    audio_encoder: str
    vae: str

    @property
    def config_path(self) -> Path:
        """The configuration file in this repository."""
        return REPOSITORY / "configs" / "unet" / self.config


PRESETS = {
    "1.6": Preset("stage2_512.yaml", "unet-1.6", "whisper-tiny", "vae"),
    "1.5": Preset("stage2.yaml", "unet-1.5", "whisper-tiny", "vae"),
    "demo": Preset("demo.yaml", "demo-unet", "demo-audio-encoder", "demo-vae"),
}
"""Best first: without a choice, the first one whose weights are all there is taken."""


# Keys of the published files whose values no published network varies.
_FIXED_MODEL_KEYS = (
    "mid_block_type motion_module_type act_fn center_input_sample downsample_padding flip_sin_to_cos freq_shift "
    "mid_block_scale_factor resnet_time_scale_shift unet_use_cross_frame_attention unet_use_temporal_attention "
    "use_inflated_groupnorm use_linear_projection only_cross_attention dual_cross_attention"
).split()


@dataclass(frozen=True)
class ModelFiles:
    """Everything the pipeline is loaded from."""

    name: str
    config_path: Path
    unet: Path
    audio_encoder: Path
    vae: Path


def preset_files(name: str | None, root: Path) -> ModelFiles:
    """Find a preset's files; without a name, those of the best preset that is complete.

    Args:
        name: a key of `PRESETS`, or None.
        root: the checkpoint folder.

    Raises:
        ConfigError: unknown name.
        CheckpointError: a file is missing; the message says how to get it.
    """
    if name is None:
        complete = [key for key in PRESETS if all(checkpoints.find(part, root) for part in checkpoints.GROUPS[key])]
        name = complete[0] if complete else "demo"
        logger.info("Model version %s (the best one whose weights are here)", name)
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    unet, audio_encoder, vae = (
        checkpoints.resolve(part, root) for part in (preset.unet, preset.audio_encoder, preset.vae)
    )
    return ModelFiles(name, preset.config_path, unet, audio_encoder, vae)


def custom_files(config_path: Path, unet: Path, root: Path) -> ModelFiles:
    """Files for a U-Net of your own: the audio encoder and VAE that its configuration goes with.

    Raises:
        CheckpointError: one of them is missing; the message says how to get it.
        ConfigError: the configuration cannot be read.
    """
    width = load_config(config_path).model.cross_attention_dim
    published = {384: "whisper-tiny", 768: "whisper-small"}.get(width)
    audio_encoder = checkpoints.resolve(published or "demo-audio-encoder", root)
    vae = checkpoints.resolve("vae" if published else "demo-vae", root)
    return ModelFiles("custom", config_path, unet, audio_encoder, vae)


def build_unet_spec(model: ModelConfig) -> UNetSpec:
    """The network that a configuration's model section describes.

    Raises:
        ConfigError: the section asks for something that no published network has.
    """
    reference = ModelConfig()
    for key in _FIXED_MODEL_KEYS:
        if getattr(model, key) != getattr(reference, key):
            raise ConfigError(f"model.{key}: got {getattr(model, key)!r}, only {getattr(reference, key)!r} exists here")
    motion = model.motion_module_kwargs
    plain = MotionModuleConfig(motion.num_attention_heads, motion.num_transformer_block)
    plain.temporal_position_encoding_max_len = motion.temporal_position_encoding_max_len
    if motion != plain:
        raise ConfigError(f"model.motion_module_kwargs: got {motion}, only {plain} exists here")
    return UNetSpec(
        in_channels=model.in_channels,
        out_channels=model.out_channels,
        block_out_channels=tuple(model.block_out_channels),
        down_block_types=tuple(model.down_block_types),
        up_block_types=tuple(model.up_block_types),
        layers_per_block=model.layers_per_block,
        cross_attention_dim=model.cross_attention_dim,
        attention_head_dim=model.attention_head_dim,
        norm_num_groups=model.norm_num_groups,
        norm_eps=model.norm_eps,
        add_audio_layer=model.add_audio_layer,
        use_motion_module=model.use_motion_module,
        motion_module_resolutions=tuple(model.motion_module_resolutions),
        motion_module_mid_block=model.motion_module_mid_block,
        motion_module_decoder_only=model.motion_module_decoder_only,
        motion_num_attention_heads=motion.num_attention_heads,
        motion_num_transformer_block=motion.num_transformer_block,
        motion_max_len=motion.temporal_position_encoding_max_len,
    )


def build_schedule(config: Config) -> NoiseSchedule:
    """The noise schedule of a configuration.

    Raises:
        ConfigError: a number is out of range, or the prediction type unknown.
    """
    scheduler = config.scheduler
    return NoiseSchedule(
        scheduler.num_train_timesteps,
        scheduler.beta_start,
        scheduler.beta_end,
        scheduler.steps_offset,
        cast(Prediction, scheduler.prediction_type),
    )


def build_face_detector(kind: str, root: Path, device: torch.device) -> Callable[[], FaceDetector]:
    """A maker of face detectors.

    Args:
        kind: "mediapipe" (carries its models, may be used commercially), "insightface" (as the published system,
            needs its model files, which are for research only), or "auto", which takes mediapipe.
        root: the checkpoint folder, where InsightFace's models are looked for.
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


def build_pipeline(
    files: ModelFiles, placement: Placement, make_detector: Callable[[], FaceDetector]
) -> LipsyncPipeline:
    """Load all networks and join them.

    Args:
        files: configuration and weights.
        placement: where everything but decoding, detection and encoding runs, and how.
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
    copies = [(copy_network(unet, other), copy_network(vae, other)) for other in placement.devices[1:]]
    generators = [_generator(config, *networks, placement) for networks in [(unet, vae), *copies]]
    audio_encoder = load_audio_encoder(files.audio_encoder, device, dtype, spec.cross_attention_dim)
    left, right = config.data.audio_feat_length
    return LipsyncPipeline(
        generator=generators[0] if len(generators) == 1 else ShardedGenerator(generators),
        audio_encoder=audio_encoder,
        make_detector=make_detector,
        mask=load_mask(config.data.mask_image_path, config.data.resolution),
        device=device,
        window_length=config.data.num_frames,
        audio_feat_length=(left, right),
        settings={
            "model": files.name,
            "config": str(files.config_path),
            "unet": str(files.unet),
            "device": placement.names,
            "dtype": str(dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "compiled": placement.compiled,
            "memory": placement.memory,
            "windows_at_once": placement.windows_at_once,
        },
    )


def _generator(
    config: Config, unet: UNet3DConditionModel, vae: AutoencoderKL, placement: Placement
) -> DiffusionGenerator:
    """The generator of the device on which the networks are."""
    return DiffusionGenerator(
        prepare_networks(unet, vae, config.data.num_frames, placement),
        vae,
        load_mask(config.data.mask_image_path, config.data.resolution),
        build_schedule(config),
        vae_batch=placement.vae_batch,
        keep_detail=config.run.keep_detail,
        windows_at_once=placement.windows_at_once,
    )


def prepare_networks(
    unet: UNet3DConditionModel, vae: AutoencoderKL, window_length: int, placement: Placement
) -> UNetPredictor:
    """Make both networks ready for their device, in place; returns the way to run the U-Net there."""
    if vae.device.type == "cpu":
        from latentsync.backends.cpu import arrange_for_cpu  # imports diffusers, see load_vae

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
