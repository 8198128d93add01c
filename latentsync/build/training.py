"""From configurations to training runs: networks, data, losses and the loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentsync.build.losses import build_syncnet_objective, build_unet_objective, unet_loss_needs
from latentsync.build.networks import FrozenNetworks, build_syncnet, build_unet, frozen_dtype, load_frozen
from latentsync.build.paths import resolve_weights
from latentsync.build.specs import build_schedule
from latentsync.build.validation import build_video_maker
from latentsync.config.load import Config, SyncNetConfig, as_dictionary
from latentsync.config.sections import (
    CkptConfig,
    ClipsConfig,
    LoopConfig,
    NoiseConfig,
    OptimizerConfig,
    SyncNetDataConfig,
)
from latentsync.data.audio_embeddings import ClipAudioEmbeddings
from latentsync.data.augmentation import FrameAugmentation
from latentsync.data.clip_dataset import ClipDataset, ClipDatasetOptions
from latentsync.data.clips.clip_list import list_clips
from latentsync.data.fixed_set import FixedSet
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.syncnet_dataset import SyncNetDataset, SyncNetSampling
from latentsync.data.unet_dataset import UNetDataset, UNetSampling
from latentsync.data.whole_clips import read_whole_clips
from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import load_mask
from latentsync.models.vae import load_vae
from latentsync.runtime.random_state import seed_everything
from latentsync.training.loop.options import CheckpointOptions, TrainerOptions, UpdateOptions
from latentsync.training.loop.task import BatchSource, Shard
from latentsync.training.loop.trainer import Trainer
from latentsync.training.syncnet.cached_frames import CachedFrameSource, FrameCache, FrameSampling
from latentsync.training.syncnet.task import FramesToImage, GuidedSyncNet, SyncNetTask, SyncNetTaskOptions
from latentsync.training.unet.cached_latents import CachedLatentSource, LatentCache, LatentSampling, ReadyWindows
from latentsync.training.unet.denoising import NoiseOptions
from latentsync.training.unet.latent_windows import WindowEncoder
from latentsync.training.unet.supervision import Supervision
from latentsync.training.unet.task import UNetTask, UNetTaskOptions, ValidationSet, select_trainable

logger = logging.getLogger(__name__)

# Keys that may differ when a run is resumed: they affect speed and length, not what is learned.
_MUTABLE_KEYS = (
    *("data.num_workers", "data.audio_mel_cache_dir", "data.audio_embeds_cache_dir", "data.train_output_dir"),
    *("data.corpus", "data.check_faces", "data.val_fileslist", "data.val_data_dir", "data.num_val_samples"),
    *("data.val_video_path", "data.val_audio_path", "run.guidance_scale", "run.keep_detail", "run.inference_steps"),
    *("run.max_train_steps", "run.max_train_epochs", "run.max_train_seconds", "run.validation_steps"),
    *("run.val_batches", "run.enable_gradient_checkpointing", "run.compile", "ckpt.save_ckpt_steps", "ckpt.keep_ckpts"),
)
# At 512 px the activations of one frame in the published decoder take about 2 GB.
_DECODED_AT_ONCE = {256: 4, 512: 1}
_PUBLISHED_WIDTH = 128  # channels of that decoder at full resolution
# At 256 px. A GPU idles with fewer; on a CPU the activations of more leave the caches.
_ENCODED_AT_ONCE = {"cuda": 32}
_FEW = 2


def build_unet_trainer(config: Config, shard: Shard, device: torch.device) -> Trainer:
    """Everything that trains a U-Net.

    Args:
        config: see configs/unet.
        shard: of this process.
        device: where frozen networks are loaded; the loop chooses the same one by itself.

    Raises:
        ConfigError, CheckpointError, DataError: something that the configuration names is missing or does not fit.
    """
    options = build_trainer_options(config, "outputs/train/unet", device)
    networks = load_frozen(config, device)
    assert networks.audio_encoder is not None
    # What starts at random must do so alike in every run and every process.
    seed_everything(options.seed)
    unet = build_unet(config)
    render = build_video_maker(config, networks, device)
    cache = Path(config.data.audio_embeds_cache_dir) if config.data.audio_embeds_cache_dir else None
    left, right = config.data.audio_feat_length
    audio = ClipAudioEmbeddings(networks.audio_encoder, cache, feat_length=(left, right))
    mask = load_mask(config.data.mask_image_path, config.data.resolution)
    stored = config.data.cache_latents
    chunk_size = _encode_batch_size(device, config.data.resolution)
    prepare: Any = ReadyWindows(mask) if stored else WindowEncoder(networks.vae, audio.windows, mask, chunk_size)
    # Before the clips are read, which may take minutes: it tells most mistakes.
    task = build_unet_task(config, unet, networks, prepare, ValidationSet(render=render))
    if stored:
        source, held_out = _latent_sources(config, networks, audio, mask.to(device), shard)
    else:
        source, held_out = _frame_sources(config, shard)
    task.validation.batches = held_out
    return Trainer(task, source, options)


def _encode_batch_size(device: torch.device, resolution: int) -> int:
    return max(_FEW, round(_ENCODED_AT_ONCE.get(device.type, _FEW) * (256 / resolution) ** 2))


def build_unet_task(
    config: Config, unet: nn.Module, networks: FrozenNetworks, prepare: Any, validation: ValidationSet
) -> UNetTask:
    """The U-Net with its losses; ``prepare`` and ``validation`` as in `UNetTask`."""
    run = config.run
    select_trainable(unet, run.trainable_modules)
    if run.enable_gradient_checkpointing:
        for network in (unet, networks.syncnet, networks.videomae):
            if network is not None:
                network.enable_gradient_checkpointing()  # type: ignore[operator]
    options = UNetTaskOptions(
        seed=run.seed,
        noise=_noise_options(run.noise, run.mixed_noise_alpha if run.use_mixed_noise else None),
        uncond_prob=run.uncond_prob,
        sample_steps=run.inference_steps,
    )
    supervision = build_supervision(config, networks)
    return UNetTask(unet, prepare, build_schedule(config), supervision, options, validation)


def build_supervision(config: Config, networks: FrozenNetworks) -> Supervision:
    """The losses that a configuration names, and the decoder of its pixel losses.

    Raises:
        ConfigError: a loss cannot be made, or the SyncNet is one on latents while pixels are decoded, or vice versa.
    """
    run, chunk_size = config.run, _DECODED_AT_ONCE.get(config.data.resolution, 2)
    on_latents = networks.syncnet is not None and networks.syncnet_resolution is None
    if run.use_syncnet and networks.syncnet is not None and run.pixel_space_supervise == on_latents:
        raise ConfigError(
            "run.pixel_space_supervise and the SyncNet's data.latent_space contradict each other: a SyncNet on latents "
            "needs run.pixel_space_supervise=false, one on pixels needs run.pixel_space_supervise=true"
        )
    return Supervision(
        vae=networks.vae,
        objective=build_unet_objective(config, networks, 4 * chunk_size),
        chunk_size=chunk_size * max(1, _PUBLISHED_WIDTH // networks.vae.config["block_out_channels"][0]),
    )


def build_syncnet_trainer(config: SyncNetConfig, shard: Shard, device: torch.device) -> Trainer:
    """Everything that trains a SyncNet; as `build_unet_trainer`."""
    data = config.data
    accumulation = max(config.run.gradient_accumulation_steps, data.gradient_accumulation_steps)
    config.run.gradient_accumulation_steps = accumulation
    trainer_options = build_trainer_options(config, "outputs/train/syncnet", device)
    seed_everything(trainer_options.seed)
    vae = None
    if data.latent_space:
        vae = load_vae(resolve_weights(config.ckpt.vae, "vae", "ckpt.vae"), device, frozen_dtype(device))
    network = build_syncnet(config)
    if config.run.enable_gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if data.cache_frames:
        source, held_out = _stored_pairs(config, device, shard)
    else:
        source, held_out = _read_pairs(config, shard)
    run = config.run
    options = SyncNetTaskOptions(seed=run.seed, augment=data.augment and data.cache_frames)
    trained = GuidedSyncNet(network, data.num_frames) if run.mouth_weight else network
    to_image = FramesToImage(data.lower_half, vae, _encode_batch_size(device, data.resolution))
    task = SyncNetTask(trained, to_image, build_syncnet_objective(config), held_out, options)
    return Trainer(task, source, trainer_options)


def _read_pairs(config: SyncNetConfig, shard: Shard) -> tuple[BatchSource, Sequence[Any]]:
    data = config.data
    source = _loader(build_syncnet_dataset(config, "train"), data, shard)
    if not _has(data, "val"):
        return source, ()
    held_out = build_syncnet_dataset(config, "val")
    return source, FixedSet(held_out, data.batch_size, _num_val_batches(data), source.record_problems)


def _num_val_batches(data: SyncNetDataConfig) -> int:
    return -(-data.num_val_samples // data.batch_size)


def _stored_pairs(config: SyncNetConfig, device: torch.device, shard: Shard) -> tuple[BatchSource, Sequence[Any]]:
    data = config.data

    def source(split: str, batch_size: int, part: Shard) -> CachedFrameSource:
        dataset = build_syncnet_dataset(config, split)
        store = FrameCache(device)
        store.fill(
            read_whole_clips(dataset.clips, data.resolution, dataset.inspector, dataset.reader, data.num_workers),
            len(dataset.clips),
        )
        pairs = FrameSampling(dataset.sampling, data.num_frames, data.windows_per_clip, config.run.seed)
        return CachedFrameSource(store, pairs, batch_size, part.rank, part.world_size)

    training = source("train", data.batch_size * shard.world_size, shard)
    if not _has(data, "val"):
        return training, ()
    held_out = source("val", 1, Shard())
    training.store.problems.update(held_out.store.problems)
    return training, held_out.fixed(data.batch_size, _num_val_batches(data))


def build_syncnet_dataset(config: SyncNetConfig, split: str) -> SyncNetDataset:
    """Pairs of the split "train" or "val" (whose frames are never changed).

    Raises:
        DataError: there are no clips.
    """
    data = config.data
    sampling = SyncNetSampling(
        min_shift=data.min_shift,
        near_negative_prob=data.near_negative_prob,
        near_shift=(data.min_shift, max(data.min_shift, data.near_shift)),
        augmentation=FrameAugmentation() if data.augment and split == "train" else None,
    )
    return SyncNetDataset(_clips(data, split), _clip_options(data, config.run.seed), sampling)


def _frame_sources(config: Config, shard: Shard) -> tuple[BatchSource, Sequence[Any]]:
    data, run = config.data, config.run
    with_mel = run.use_syncnet or "mel" in unet_loss_needs(config)
    sampling = UNetSampling(with_mel, data.paired_takes, data.ref_same_prob)
    options = _clip_options(data, run.seed)
    source = _loader(UNetDataset(_clips(data, "train"), options, sampling), data, shard)
    if not _has(data, "val"):
        return source, ()
    held_out = UNetDataset(_clips(data, "val"), options, sampling)
    return source, FixedSet(held_out, data.batch_size, run.val_batches * shard.world_size, source.record_problems)


def _latent_sources(
    config: Config, networks: FrozenNetworks, audio: ClipAudioEmbeddings, mask: torch.Tensor, shard: Shard
) -> tuple[BatchSource, Sequence[Any]]:
    data, run = config.data, config.run
    left, right = data.audio_feat_length
    sampling = LatentSampling(data.num_frames, data.windows_per_clip, data.ref_same_prob, (left, right), run.seed)

    def source(split: str, batch_size: int, part: Shard) -> CachedLatentSource:
        dataset = UNetDataset(_clips(data, split), _clip_options(data, run.seed))
        clips = read_whole_clips(dataset.clips, data.resolution, dataset.inspector, dataset.reader, data.num_workers)
        chunk_size = _encode_batch_size(mask.device, data.resolution)
        store = LatentCache(networks.vae, audio, mask, data.paired_takes, chunk_size)
        store.fill(clips, len(dataset.clips))
        return CachedLatentSource(store, sampling, batch_size, part.rank, part.world_size)

    training = source("train", data.batch_size * shard.world_size, shard)
    if not _has(data, "val"):
        return training, ()
    held_out = source("val", 1, Shard())
    training.store.problems.update(held_out.store.problems)
    return training, held_out.fixed(data.batch_size, run.val_batches * shard.world_size)


def _has(data: ClipsConfig, split: str) -> bool:
    return bool(getattr(data, f"{split}_fileslist") or getattr(data, f"{split}_data_dir"))


def _clips(data: ClipsConfig, split: str) -> list[Path]:
    return list_clips(getattr(data, f"{split}_fileslist"), getattr(data, f"{split}_data_dir"))


def _clip_options(data: ClipsConfig, seed: int) -> ClipDatasetOptions:
    cache = Path(data.audio_mel_cache_dir) if data.audio_mel_cache_dir else None
    return ClipDatasetOptions(
        num_frames=data.num_frames,
        resolution=data.resolution,
        seed=seed,
        windows_per_clip=data.windows_per_clip,
        check_faces=data.check_faces,
        mel_cache=cache,
        clip_info_cache=cache,
    )


def _loader(dataset: ClipDataset[Any], data: ClipsConfig, shard: Shard) -> BatchLoader[Any]:
    options = LoaderOptions(data.batch_size * shard.world_size, shard.rank, shard.world_size, data.num_workers)
    return BatchLoader(dataset, options)


def _noise_options(noise: NoiseConfig, alpha: float | None) -> NoiseOptions:
    return NoiseOptions(mixed_noise_alpha=alpha, **vars(noise))


def build_trainer_options(
    config: Config | SyncNetConfig, folder: str, device: torch.device | None = None
) -> TrainerOptions:
    """How the loop goes.

    Args:
        config: see there.
        folder: of the run, where the configuration names none.
        device: a CPU forbids the GPU that may be there.
    """
    run: LoopConfig = config.run
    ckpt: CkptConfig = config.ckpt
    return TrainerOptions(
        run_folder=Path(config.data.train_output_dir or folder),
        update=_update_options(config.optimizer, run),
        checkpoints=CheckpointOptions(save_ckpt_steps=ckpt.save_ckpt_steps, keep_last=ckpt.keep_ckpts),
        max_train_steps=run.max_train_steps,
        max_train_epochs=run.max_train_epochs,
        max_train_seconds=run.max_train_seconds,
        validation_steps=run.validation_steps or ckpt.save_ckpt_steps,
        batch_size=config.data.batch_size,
        mixed_precision=run.mixed_precision if run.mixed_precision_training else "no",  # type: ignore[arg-type]
        cpu=device is not None and device.type == "cpu",
        compile=run.compile,
        seed=run.seed,
        config=as_dictionary(config),
        default_config=as_dictionary(type(config)()),
        mutable_keys=_MUTABLE_KEYS,
    )


def _update_options(optimizer: OptimizerConfig, run: LoopConfig) -> UpdateOptions:
    return UpdateOptions(
        lr=optimizer.lr,
        betas=(optimizer.adam_beta1, optimizer.adam_beta2),
        weight_decay=optimizer.weight_decay,
        scale_lr=optimizer.scale_lr,
        lr_scheduler=optimizer.lr_scheduler,  # type: ignore[arg-type]  # checked there
        lr_warmup_steps=optimizer.lr_warmup_steps,
        max_grad_norm=optimizer.max_grad_norm,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        ema_decay=run.ema_decay,
    )
