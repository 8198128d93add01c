"""Configuration files: inheritance, types, the published keys, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from latentsync.build.networks import build_syncnet_spec, check_syncnet_input
from latentsync.build.specs import build_schedule, build_unet_spec
from latentsync.config.load import as_dictionary, load_config, load_syncnet_config
from latentsync.errors import ConfigError
from latentsync.models.unet.spec import UNetSpec

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "unet"

PUBLISHED_STYLE = """
data:
  syncnet_config_path: configs/syncnet/syncnet_16_pixel_attn.yaml
  train_output_dir: debug/unet
  train_fileslist: /data/clips/fileslist.txt
  train_data_dir: ""
  audio_embeds_cache_dir: /data/embeds
  audio_mel_cache_dir: /data/mel
  val_video_path: assets/demo1_video.mp4
  val_audio_path: assets/demo1_audio.wav
  batch_size: 1
  num_workers: 12
  num_frames: 16
  resolution: 512
  mask_image_path: latentsync/utils/mask.png
  audio_sample_rate: 16000
  video_fps: 25
  audio_feat_length: [2, 2]
ckpt: {resume_ckpt_path: checkpoints/latentsync_unet.pt, save_ckpt_steps: 10000}
run:
  pixel_space_supervise: true
  use_syncnet: true
  sync_loss_weight: 0.05
  perceptual_loss_weight: 0.1
  recon_loss_weight: 1
  guidance_scale: 1.5
  trepa_loss_weight: 10
  inference_steps: 20
  trainable_modules:
    - motion_modules.
    - attentions.
  seed: 1247
  use_mixed_noise: true
  mixed_noise_alpha: 1
  mixed_precision_training: true
  enable_gradient_checkpointing: true
  max_train_steps: 10000000
  max_train_epochs: -1
optimizer:
  lr: 1e-5
  scale_lr: false
  max_grad_norm: 1.0
  lr_scheduler: constant
  lr_warmup_steps: 0
model:
  act_fn: "silu"
  add_audio_layer: true
  attention_head_dim: 8
  block_out_channels: [320, 640, 1280, 1280]
  cross_attention_dim: 384
  flip_sin_to_cos: true
  freq_shift: 0
  norm_eps: 1e-5
  use_motion_module: true
  motion_module_resolutions: [1, 2, 4, 8]
  motion_module_type: Vanilla
  motion_module_kwargs:
    num_attention_heads: 8
    num_transformer_block: 1
    attention_block_types: [Temporal_Self, Temporal_Self]
    temporal_position_encoding: true
    temporal_position_encoding_max_len: 24
    temporal_attention_dim_div: 1
    zero_initialize: true
"""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[a-z]*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_builds_a_spec(path: Path) -> None:
    config = load_config(path)
    spec = build_unet_spec(config.model)
    assert spec.in_channels == 13 and spec.cross_attention_dim == config.model.cross_attention_dim
    assert build_schedule(config).timesteps(20)[0] == 951


def test_stages_differ_where_they_should() -> None:
    stage1, stage2, efficient = (
        build_unet_spec(load_config(CONFIGS / f"{name}.yaml").model)
        for name in ("stage1", "stage2", "stage2_efficient")
    )
    assert stage2 == UNetSpec()
    assert not stage1.use_motion_module
    assert efficient.motion_module_decoder_only
    assert load_config(CONFIGS / "stage2_512.yaml").data.resolution == 512


def test_a_file_with_the_published_keys_loads_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "unet.yaml"
    path.write_text(PUBLISHED_STYLE)
    config = load_config(path)
    assert build_unet_spec(config.model) == UNetSpec()
    assert isinstance(config.model.norm_eps, float)
    assert config.data.resolution == 512 and config.data.train_fileslist == "/data/clips/fileslist.txt"
    assert config.run.trainable_modules == ["motion_modules.", "attentions."]
    assert (config.run.trepa_loss_weight, config.optimizer.lr, config.run.max_train_epochs) == (10.0, 1e-5, -1)


PUBLISHED_STYLE_SYNCNET = """
model:
  audio_encoder: # input (1, 80, 80)
    in_channels: 1
    block_out_channels: [64, 128, 256, 256, 512, 1024]
    downsample_factors: [2, 2, 2, 2, 2, 2]
    dropout: 0.0
  visual_encoder: # input (75, 128, 256)
    in_channels: 75
    block_out_channels: [128, 128, 256, 256, 512, 512, 1024, 1024]
    downsample_factors: [[1, 2], 2, 2, 2, 2, 2, 2, 2]
    dropout: 0.0
ckpt:
  resume_ckpt_path: ""
  inference_ckpt_path: checkpoints/stable_syncnet.pt
  save_ckpt_steps: 2500
data:
  train_output_dir: debug/syncnet
  num_val_samples: 1024
  batch_size: 64
  gradient_accumulation_steps: 1
  num_workers: 12
  latent_space: false
  num_frames: 25
  resolution: 256
  train_fileslist: /data/fileslist.txt
  train_data_dir: ""
  val_fileslist: ""
  val_data_dir: /data/val
  audio_mel_cache_dir: /data/mel
  lower_half: true
  audio_sample_rate: 16000
  video_fps: 25
optimizer:
  lr: 1e-5
  max_grad_norm: 1.0
run:
  max_train_steps: 10000000
  validation_steps: 2500
  mixed_precision_training: true
  seed: 42
"""


def test_a_syncnet_file_with_the_published_keys_loads_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "syncnet.yaml"
    path.write_text(PUBLISHED_STYLE_SYNCNET)
    config = load_syncnet_config(path)
    check_syncnet_input(config)
    shipped = load_syncnet_config(CONFIGS.parent / "syncnet" / "syncnet_25_pixel.yaml")
    # The published file has no attn_blocks.
    assert build_syncnet_spec(config) == build_syncnet_spec(shipped)
    assert (config.data.num_val_samples, config.run.seed, config.optimizer.lr) == (1024, 42, 1e-5)


@pytest.mark.parametrize("path", sorted(CONFIGS.parent.glob("[us]*net/[a-z]*.yaml")), ids=lambda path: path.stem)
def test_the_written_form_of_a_configuration_is_the_same_one(path: Path, tmp_path: Path) -> None:
    load = load_config if path.parent.name == "unet" else load_syncnet_config
    config = load(path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_dictionary(config)))
    assert load(tmp_path / "config.yaml") == config


def test_overrides_win_over_file_and_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("run: {inference_steps: 30, guidance_scale: 2.0}\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\nrun: {inference_steps: 10}\n")
    config = load_config(tmp_path / "own.yaml", ["run.seed=3"])
    assert (config.run.inference_steps, config.run.guidance_scale, config.run.seed) == (10, 2.0, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: {resolutoin: 256}", "resolutoin"),
        ("data: {resolution: 250}", "multiple of 64"),
        ("data: {num_frames: 25}", "1 to 24"),
        ("data: {ref_same_prob: 1.5}", "ref_same_prob"),
        ("data: {audio_feat_length: [2]}", "two numbers"),
        ("data: {audio_sample_rate: 44100}", "needs 16000"),
        ("data: {video_fps: 30}", "made for 25"),
        ("data: {batch_size: 0}", "from 1"),
        ("run: {uncond_prob: -0.1}", "uncond_prob"),
        ("run: {val_batches: -1}", "val_batches"),
        ("run: {perceptual: taste}", "lpips or pyramid"),
        ("run: {inference_steps: many}", "inference_steps"),
        ("data: 5", "data"),
        ("run: fast", "run"),
        ("- a list", "ListConfig"),
        ("a: [unclosed", "not readable as YAML"),
        ("base: own.yaml", "comes back to itself"),
        ("base: nowhere.yaml", "does not exist"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("line", ["motion_module_type: Other", "motion_module_kwargs: {zero_initialize: false}"])
def test_networks_that_do_not_exist_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"model: {{{line}}}")
    with pytest.raises(ConfigError, match="exists here"):
        build_unet_spec(load_config(path).model)


def test_an_override_may_be_empty() -> None:
    config = load_config(CONFIGS / "stage2.yaml", ["ckpt.resume_ckpt_path=", "run.trainable_modules=[]"])
    assert config.ckpt.resume_ckpt_path == "" and config.run.trainable_modules == []


def test_an_override_without_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="section.key=value"):
        load_config(CONFIGS / "stage2.yaml", ["run.seed"])
