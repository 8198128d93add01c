"""From training configurations to networks: the trained one and the frozen ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from latentsync.build.losses import unet_loss_needs
from latentsync.build.paths import find_file, resolve_weights
from latentsync.build.specs import build_unet_spec
from latentsync.config.load import Config, SyncNetConfig, load_syncnet_config
from latentsync.config.sections import DataConfig, EncoderConfig, SyncNetDataConfig, TrepaConfig
from latentsync.errors import ConfigError
from latentsync.media.audio.syncnet_mel import N_MELS, mel_columns
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec
from latentsync.models.unet.inflate import inflate_unet
from latentsync.models.unet.load import load_unet
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.vae import load_vae
from latentsync.models.vgg_lpips import VggLpips, load_vgg_lpips
from latentsync.models.video_mae import VideoMae, VideoMaeSpec, load_video_mae
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.models.weights.strict_loading import load_strictly
from latentsync.whisper.audio_encoder import AudioEncoder, load_audio_encoder

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

logger = logging.getLogger(__name__)

_IMAGE_CHANNELS = (4, 9)  # of conv_in in Stable Diffusion's own networks


@dataclass
class FrozenNetworks:
    """Frozen networks of U-Net training.

    Attributes:
        vae: encodes windows, and decodes estimates for pixel losses.
        audio_encoder: computes audio embeddings.
        syncnet, syncnet_resolution: sync critic; resolution None = on latents.
        lpips: perceptual critic.
        videomae: motion critic.
    """

    vae: AutoencoderKL
    audio_encoder: AudioEncoder | None
    syncnet: StableSyncNet | None = None
    syncnet_resolution: int | None = None
    lpips: VggLpips | None = None
    videomae: VideoMae | None = None


def frozen_dtype(device: torch.device) -> torch.dtype:
    """Precision of frozen networks: half where the hardware gains by it."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def build_unet(config: Config) -> UNet3DConditionModel:
    """The U-Net to train, float32 on the CPU: from ``ckpt.resume_ckpt_path``, or from nothing.

    The file may be a lip-sync U-Net, or an image U-Net of Stable Diffusion 1.5 in diffusers' layout.

    Raises:
        CheckpointError: the file is missing, damaged, or of another network.
    """
    spec = build_unet_spec(config.model)
    device, dtype = torch.device("cpu"), torch.float32
    if not config.ckpt.resume_ckpt_path:
        unet = UNet3DConditionModel(spec)
        # Zero, as in published files, would only delay the first steps of a network that starts from nothing.
        nn.Conv2d.reset_parameters(unet.conv_in)
        return unet
    path = find_file(config.ckpt.resume_ckpt_path, "ckpt.resume_ckpt_path")
    stem = read_state_dict(path).get("conv_in.weight")
    if stem is not None and stem.shape[1] in _IMAGE_CHANNELS and stem.shape[1] != spec.in_channels:
        return inflate_unet(spec, path, device, dtype)[0]
    return load_unet(spec, path, device, dtype, allow_reinit=True)


def build_syncnet_spec(config: SyncNetConfig) -> StableSyncNetSpec:
    """The sizes that a configuration's model section describes.

    Raises:
        ConfigError: lists of different lengths, or widths that do not work.
    """
    return StableSyncNetSpec(_encoder(config.model.visual_encoder), _encoder(config.model.audio_encoder))


def _encoder(config: EncoderConfig) -> SyncNetEncoderSpec:
    factors = tuple(
        factor if isinstance(factor, int) else (factor[0], factor[1]) for factor in config.downsample_factors
    )
    return SyncNetEncoderSpec(
        in_channels=config.in_channels,
        block_out_channels=tuple(config.block_out_channels),
        downsample_factors=tuple(factors),
        attn_blocks=tuple(config.attn_blocks),
        dropout=config.dropout,
    )


def check_syncnet_input(config: SyncNetConfig) -> None:
    """Whether the network of a configuration takes the windows of its data section.

    Raises:
        ConfigError: it does not.
    """
    data, wanted = config.data, config.model.visual_encoder.in_channels
    channels, side = (4, data.resolution // 8) if data.latent_space else (3, data.resolution)
    if wanted != data.num_frames * channels:
        raise ConfigError(
            f"model.visual_encoder.in_channels: got {wanted}, but {data.num_frames} frames of {channels} channels are "
            f"{data.num_frames * channels}; change it, or data.num_frames"
        )
    height = side // 2 if data.lower_half and not data.latent_space else side
    with torch.device("meta"):
        network = StableSyncNet(build_syncnet_spec(config))
        image, mel = torch.empty(2, wanted, height, side), torch.empty(2, 1, N_MELS, mel_columns(data.num_frames))
    try:
        vision, audio = network.visual_encoder(image), network.audio_encoder(mel)
    except RuntimeError as error:
        raise ConfigError(f"model: an image {height} x {side} shrinks below its smallest size ({error})") from error
    if vision.shape != audio.shape:
        raise ConfigError(
            f"model: an image {height} x {side} gives {vision.shape[1]} values, a mel {N_MELS} x {mel.shape[-1]} in "
            f"{audio.shape[1]}, and these must be equal: change downsample_factors or block_out_channels"
        )


def build_syncnet(config: SyncNetConfig) -> StableSyncNet:
    """The SyncNet to train: from ``ckpt.resume_ckpt_path``, or from nothing.

    Raises:
        CheckpointError: the file is missing, damaged, or of another network.
        ConfigError: the network does not take the windows of the data section.
    """
    check_syncnet_input(config)
    if config.ckpt.resume_ckpt_path:
        path = find_file(config.ckpt.resume_ckpt_path, "ckpt.resume_ckpt_path")
        return load_syncnet(config, path).requires_grad_(True).train()
    return StableSyncNet(build_syncnet_spec(config))


def load_syncnet(config: SyncNetConfig, path: Path) -> StableSyncNet:
    """A trained SyncNet, float32 on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or of another network.
    """
    with torch.device("meta"):
        network = StableSyncNet(build_syncnet_spec(config))
    return load_strictly(network, read_state_dict(path), path, (torch.device("cpu"), torch.float32))


def trained_syncnet(config_path: str) -> tuple[StableSyncNet, SyncNetConfig]:
    """The trained SyncNet that a configuration names as critic.

    Raises:
        ConfigError: no configuration is named.
        CheckpointError: its weights are missing or do not fit.
    """
    if not config_path:
        raise ConfigError("data.syncnet_config_path is empty, but a loss needs a SyncNet: name its YAML file")
    config = load_syncnet_config(find_file(config_path, "data.syncnet_config_path"))
    check_syncnet_input(config)
    path = resolve_weights(config.ckpt.inference_ckpt_path, "stable-syncnet", "ckpt.inference_ckpt_path")
    return load_syncnet(config, path), config


def check_syncnet(critic: SyncNetDataConfig, data: DataConfig) -> None:
    """Whether a SyncNet takes the windows of a U-Net.

    Raises:
        ConfigError: it takes other windows.
    """
    name = f"The SyncNet of {data.syncnet_config_path}"
    if critic.num_frames != data.num_frames:
        raise ConfigError(
            f"{name} takes {critic.num_frames} frames, but the U-Net's data.num_frames is {data.num_frames}; they "
            "must be equal"
        )
    if critic.latent_space and critic.resolution != data.resolution:
        raise ConfigError(
            f"{name} takes latents of {critic.resolution} px, but the U-Net's data.resolution is {data.resolution}; "
            "latents cannot be resized: train one for that size, or use a SyncNet on pixels"
        )
    if not critic.latent_space and not critic.lower_half:
        raise ConfigError(f"{name} takes whole faces; the U-Net's needs one with data.lower_half=true")


def load_frozen(config: Config, device: torch.device) -> FrozenNetworks:
    """Load what a U-Net configuration needs, on the device, in half precision where the hardware gains by it.

    Raises:
        CheckpointError: weights are missing; the message says how to get them.
        ConfigError: a file that the configuration names does not exist.
    """
    dtype, ckpt = frozen_dtype(device), config.ckpt
    width = config.model.cross_attention_dim
    whisper = {384: "whisper-tiny", 768: "whisper-small"}.get(width)
    vae = load_vae(resolve_weights(ckpt.vae, "vae" if whisper else "demo-vae", "ckpt.vae"), device, dtype)
    audio = resolve_weights(ckpt.audio_encoder, whisper or "demo-audio-encoder", "ckpt.audio_encoder")
    networks = FrozenNetworks(vae, load_audio_encoder(audio, device, dtype, width))
    needs = unet_loss_needs(config)
    if "syncnet" in needs:
        syncnet, syncnet_config = trained_syncnet(config.data.syncnet_config_path)
        check_syncnet(syncnet_config.data, config.data)
        networks.syncnet = syncnet.to(device, dtype)
        networks.syncnet_resolution = None if syncnet_config.data.latent_space else syncnet_config.data.resolution
    if "lpips" in needs:
        vgg = resolve_weights(ckpt.lpips_vgg, "vgg16", "ckpt.lpips_vgg")
        linear = resolve_weights(ckpt.lpips_linear, "lpips-vgg", "ckpt.lpips_linear")
        networks.lpips = load_vgg_lpips(vgg, linear, device, dtype)
    if "videomae" in needs:
        path = resolve_weights(ckpt.videomae, "videomae-v2", "ckpt.videomae")
        networks.videomae = load_video_mae(build_videomae_spec(config.trepa), path, device, dtype)
    return networks


def build_videomae_spec(config: TrepaConfig) -> VideoMaeSpec:
    """Sizes of the video network that TREPA compares features of."""
    return VideoMaeSpec(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        mlp_width=config.mlp_width,
    )
