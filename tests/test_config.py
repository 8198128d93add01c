"""Configuration files: inheritance, types, the published keys, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentsync.builders import build_schedule, build_unet_spec
from latentsync.config import load_config
from latentsync.errors import ConfigError
from latentsync.models.unet_spec import UNetSpec

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "unet"

PUBLISHED_STYLE = """
data:
  syncnet_config_path: configs/syncnet/syncnet_16_pixel_attn.yaml
  train_output_dir: debug/unet
  batch_size: 1
  num_workers: 12
  num_frames: 16
  resolution: 512
  mask_image_path: latentsync/utils/mask.png
  audio_sample_rate: 16000
  video_fps: 25
  audio_feat_length: [2, 2]
ckpt: {resume_ckpt_path: checkpoints/latentsync_unet.pt, save_ckpt_steps: 10000}
run: {pixel_space_supervise: true, guidance_scale: 1.5, inference_steps: 20, seed: 1247, use_mixed_noise: true}
optimizer: {lr: 1e-5}
model:
  act_fn: "silu"
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
    assert config.data.resolution == 512


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


def test_an_override_without_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="section.key=value"):
        load_config(CONFIGS / "stage2.yaml", ["run.seed"])
