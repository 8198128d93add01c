"""Everything that a training from the command line needs, so small that it runs in seconds: corpus, networks, YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from latentsync.build.networks import build_syncnet_spec
from latentsync.config.load import load_syncnet_config
from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.synthetic.corpus import CorpusOptions, make_corpus
from tests.tiny_models import TinyModels, write_tiny_models

UNET = """\
base: ../models/tiny.yaml
data:
  train_data_dir: {root}/corpus/train
  val_data_dir: {root}/corpus/val
  syncnet_config_path: {root}/configs/syncnet.yaml
  num_frames: 4
  batch_size: 2
  num_workers: 0
  check_faces: false
  cache_latents: true
  paired_takes: true
  ref_same_prob: 0.5
  windows_per_clip: 2
ckpt:
  audio_encoder: {root}/models/demo/audio_encoder.safetensors
  vae: {root}/models/demo/vae
  save_ckpt_steps: 4
run:
  inference_steps: 2
  max_train_steps: 4
  val_batches: 1
  enable_gradient_checkpointing: false
  trepa_loss_weight: 0
  perceptual: pyramid
optimizer:
  lr: 1e-3
"""

SYNCNET = """\
data:
  train_data_dir: {root}/corpus/train
  val_data_dir: {root}/corpus/val
  num_frames: 4
  resolution: 64
  batch_size: 4
  num_val_samples: 8
  num_workers: 0
  check_faces: false
  windows_per_clip: 2
ckpt:
  inference_ckpt_path: {root}/configs/syncnet.safetensors
  vae: {root}/models/demo/vae
  save_ckpt_steps: 4
run:
  max_train_steps: 4
  validation_steps: 4
optimizer:
  lr: 1e-3
model:
  visual_encoder:
    in_channels: 12
    block_out_channels: [32, 128]
    downsample_factors: [[4, 8], 8]
  audio_encoder:
    in_channels: 1
    block_out_channels: [32, 128]
    downsample_factors: [[10, 13], [8, 1]]
"""


@dataclass(frozen=True)
class TinyTraining:
    """Where everything lies."""

    root: Path
    models: TinyModels

    @property
    def corpus(self) -> Path:
        """Folder with ``train`` and ``val``: 64 px, two seconds, two takes of each scene."""
        return self.root / "corpus"

    @property
    def unet(self) -> Path:
        """Configuration of the U-Net."""
        return self.root / "configs" / "unet.yaml"

    @property
    def syncnet(self) -> Path:
        """Configuration of the SyncNet."""
        return self.root / "configs" / "syncnet.yaml"


def write_tiny_training(root: Path, scenes: int = 3) -> TinyTraining:
    """Write corpus, frozen networks and configurations."""
    root.mkdir()
    training = TinyTraining(root, write_tiny_models(root / "models"))
    (root / "configs").mkdir()
    training.unet.write_text(UNET.format(root=root))
    training.syncnet.write_text(SYNCNET.format(root=root))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        syncnet = StableSyncNet(build_syncnet_spec(load_syncnet_config(training.syncnet)))
        save_file(syncnet.state_dict(), root / "configs" / "syncnet.safetensors")
    make_corpus(CorpusOptions(training.corpus, scenes, 1, 64, 2.0, workers=1))
    return training
