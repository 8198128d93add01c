"""Typed configuration: one dataclass per YAML section, ``base:`` inheritance, unknown keys are errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentsync.errors import ConfigError

logger = logging.getLogger(__name__)

# Keys of the published YAML files that concern training; accepted everywhere so that those files load unchanged.
_TRAINING_KEYS = {
    "data": {
        "syncnet_config_path",
        "train_output_dir",
        "train_fileslist",
        "train_data_dir",
        "audio_embeds_cache_dir",
        "audio_mel_cache_dir",
        "val_video_path",
        "val_audio_path",
        "batch_size",
        "num_workers",
    },
    "run": {
        "pixel_space_supervise",
        "use_syncnet",
        "sync_loss_weight",
        "perceptual_loss_weight",
        "recon_loss_weight",
        "trepa_loss_weight",
        "trainable_modules",
        "use_mixed_noise",
        "mixed_noise_alpha",
        "mixed_precision_training",
        "enable_gradient_checkpointing",
        "max_train_steps",
        "max_train_epochs",
    },
}
_TRAINING_SECTIONS = {"optimizer", "ckpt"}


@dataclass
class DataConfig:
    """What a window looks and sounds like.

    Attributes:
        resolution: side of the square face crop in pixels, a multiple of 64.
        num_frames: frames of a window.
        mask_image_path: name of a fixed mask (mask, mask2, mask3, mask4) or a picture file.
        audio_sample_rate: samples per second of the audio the networks hear.
        video_fps: frame rate the model was trained at.
        audio_feat_length: video frames of audio context before and after a frame.
    """

    resolution: int = 512
    num_frames: int = 16
    mask_image_path: str = "mask"
    audio_sample_rate: int = 16000
    video_fps: int = 25
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])

    def __post_init__(self) -> None:
        if self.resolution < 64 or self.resolution % 64:
            raise ConfigError(f"data.resolution: got {self.resolution}, expected a multiple of 64")
        if not 1 <= self.num_frames <= 24:
            raise ConfigError(f"data.num_frames: got {self.num_frames}, expected 1 to 24 (the motion modules' reach)")
        if len(self.audio_feat_length) != 2:
            raise ConfigError(f"data.audio_feat_length: got {self.audio_feat_length}, expected two numbers")
        if self.audio_sample_rate != 16000:
            raise ConfigError(f"data.audio_sample_rate: got {self.audio_sample_rate}, the audio encoder needs 16000")


@dataclass
class RunConfig:
    """How a video is sampled unless the command line says otherwise.

    Attributes:
        guidance_scale: see `latentsync.diffusion.denoise.SamplerOptions`.
        inference_steps: DDIM steps.
        seed: seed of the noise; -1 draws a fresh one.
        keep_detail: give the face the source's own detail back where nothing changed, for a VAE that blurs; costs
            one more decoding per frame.
    """

    guidance_scale: float = 1.5
    inference_steps: int = 20
    seed: int = 1247
    keep_detail: bool = False


@dataclass
class MotionModuleConfig:
    """Temporal attention; only the published kind exists, the keys are read to make sure."""

    num_attention_heads: int = 8
    num_transformer_block: int = 1
    attention_block_types: list[str] = field(default_factory=lambda: ["Temporal_Self", "Temporal_Self"])
    temporal_position_encoding: bool = True
    temporal_position_encoding_max_len: int = 24
    temporal_attention_dim_div: int = 1
    zero_initialize: bool = True


@dataclass
class ModelConfig:
    """The U-Net, in the words of the published YAML files; see `latentsync.models.unet_spec.UNetSpec`."""

    in_channels: int = 13
    out_channels: int = 4
    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])
    down_block_types: list[str] = field(default_factory=lambda: [*["CrossAttnDownBlock3D"] * 3, "DownBlock3D"])
    up_block_types: list[str] = field(default_factory=lambda: ["UpBlock3D", *["CrossAttnUpBlock3D"] * 3])
    mid_block_type: str = "UNetMidBlock3DCrossAttn"
    layers_per_block: int = 2
    cross_attention_dim: int = 384
    attention_head_dim: int = 8
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    add_audio_layer: bool = True
    use_motion_module: bool = True
    motion_module_decoder_only: bool = False
    motion_module_mid_block: bool = False
    motion_module_resolutions: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    motion_module_type: str = "Vanilla"
    motion_module_kwargs: MotionModuleConfig = field(default_factory=MotionModuleConfig)
    act_fn: str = "silu"
    center_input_sample: bool = False
    downsample_padding: int = 1
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    mid_block_scale_factor: float = 1
    resnet_time_scale_shift: str = "default"
    sample_size: int = 64
    unet_use_cross_frame_attention: bool = False
    unet_use_temporal_attention: bool = False
    use_inflated_groupnorm: bool = False
    use_linear_projection: bool = False
    only_cross_attention: bool = False
    dual_cross_attention: bool = False


@dataclass
class SchedulerConfig:
    """The noise schedule; see `latentsync.diffusion.ddim.NoiseSchedule`."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps_offset: int = 1
    prediction_type: str = "epsilon"


@dataclass
class Config:
    """One U-Net configuration file."""

    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: a YAML file; its ``base:`` names a file beside it whose values it inherits.
        overrides: ``section.key=value`` settings that win over the file.

    Returns:
        The typed configuration, every value checked.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown, or a value is of the wrong kind or out of range.
    """
    merged: Any = _with_bases(path, seen=())
    if overrides:
        merged = OmegaConf.merge(merged, _read_overrides(overrides))
    _drop_training_keys(merged)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Config), merged)
        result: Any = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: {error.full_key or 'a section'}: {reason}. Compare with configs/unet/_base.yaml"
        ) from error
    if not isinstance(result, Config):
        raise ConfigError(f"{path}: expected sections data, run, model and scheduler")
    return result


def _with_bases(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: its chain of `base:` files comes back to itself")
    if not path.is_file():
        raise ConfigError(f"Configuration {path} does not exist; the ready-made ones are in configs/unet/")
    try:
        content = OmegaConf.load(path)
    except Exception as error:  # yaml raises its own family, OmegaConf another, the codec a third
        raise ConfigError(f"Configuration {path} is not readable as YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"Configuration {path}: expected sections like `model:`, found {type(content).__name__}")
    base = content.pop("base", None)
    if base is None:
        return content
    merged = OmegaConf.merge(_with_bases(path.parent / str(base), (*seen, path)), content)
    return merged  # type: ignore[return-value]  # two dictionaries merge into a dictionary


def _read_overrides(overrides: Sequence[str]) -> DictConfig:
    for item in overrides:
        if "=" not in item:
            raise ConfigError(f"Override {item!r}: expected section.key=value, for example run.inference_steps=10")
    return OmegaConf.from_dotlist(list(overrides))


def _drop_training_keys(merged: Any) -> None:
    dropped = [section for section in _TRAINING_SECTIONS if section in merged]
    for section in dropped:
        del merged[section]
    for section, keys in _TRAINING_KEYS.items():
        content = merged.get(section)
        if not isinstance(content, DictConfig):
            continue  # absent, or refused when the types are checked
        for key in [key for key in content if key in keys]:
            del content[key]
            dropped.append(f"{section}.{key}")
    if dropped:
        logger.debug("Settings that concern training only, not used here: %s", ", ".join(sorted(dropped)))
