"""Converts configuration sections to the specifications that networks and schedules are built from."""

from __future__ import annotations

from typing import cast

from latentsync.config.load import Config
from latentsync.config.sections import ModelConfig, MotionModuleConfig
from latentsync.diffusion.ddim import NoiseSchedule, Prediction
from latentsync.errors import ConfigError
from latentsync.models.unet.spec import UNetSpec

# Keys of the published files that have the same value in every published network.
_FIXED_MODEL_KEYS = (
    "mid_block_type motion_module_type act_fn center_input_sample downsample_padding flip_sin_to_cos freq_shift "
    "mid_block_scale_factor resnet_time_scale_shift unet_use_cross_frame_attention unet_use_temporal_attention "
    "use_inflated_groupnorm use_linear_projection only_cross_attention dual_cross_attention"
).split()


def build_unet_spec(model: ModelConfig) -> UNetSpec:
    """The specification of the U-Net that a configuration's model section describes.

    Raises:
        ConfigError: a value is not supported, as no published network has it.
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
