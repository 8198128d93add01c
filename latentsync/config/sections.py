"""The sections of configuration files as dataclasses, in the words of the published YAML files.

Keys that the published files do not have are marked "(ours)"; their defaults change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from latentsync.errors import ConfigError


@dataclass
class CorpusConfig:
    """A synthetic corpus to be made when the data folders do not exist yet (ours).

    Attributes:
        scenes: scenes of two takes in ``train``; 0 = make nothing.
        val_scenes: the same in ``val``.
        resolution: side of the aligned crops.
        seconds: length of a take.
        seed: of everything in it.
    """

    scenes: int = 0
    val_scenes: int = 4
    resolution: int = 256
    seconds: float = 3.2
    seed: int = 1247


@dataclass
class ClipsConfig:
    """Where clips come from, shared by U-Net and SyncNet training.

    Attributes:
        train_fileslist, train_data_dir: list of clips, or a folder of them; the list wins.
        val_fileslist, val_data_dir: the same for validation.
        train_output_dir: folder of the run.
        num_frames: frames of a window.
        resolution: side of the square face crop in pixels.
        batch_size: windows per process and step.
        num_workers: processes that read clips; 0 reads in the main process.
        audio_mel_cache_dir: where mels are kept; "" = not kept.
        audio_sample_rate, video_fps: what the networks are made for.
        windows_per_clip: windows taken from each clip in an epoch (ours).
        check_faces: leave clips out in which no face is found (ours).
        corpus: see there (ours).
    """

    train_fileslist: str = ""
    train_data_dir: str = ""
    val_fileslist: str = ""
    val_data_dir: str = ""
    train_output_dir: str = ""
    num_frames: int = 16
    resolution: int = 512
    batch_size: int = 1
    num_workers: int = 12
    audio_mel_cache_dir: str = ""
    audio_sample_rate: int = 16000
    video_fps: int = 25
    windows_per_clip: int = 1
    check_faces: bool = True
    corpus: CorpusConfig = field(default_factory=CorpusConfig)

    def __post_init__(self) -> None:
        if self.resolution < 64 or self.resolution % 64:
            raise ConfigError(f"data.resolution: got {self.resolution}, expected a multiple of 64")
        if self.audio_sample_rate != 16000:
            raise ConfigError(f"data.audio_sample_rate: got {self.audio_sample_rate}, the audio encoder needs 16000")
        if self.video_fps != 25:
            raise ConfigError(f"data.video_fps: got {self.video_fps}, the networks are made for 25")
        if self.batch_size < 1 or self.num_workers < 0 or self.windows_per_clip < 1:
            raise ConfigError("data: batch_size and windows_per_clip from 1, num_workers from 0 are needed")


@dataclass
class DataConfig(ClipsConfig):
    """Windows of U-Net training.

    Attributes:
        mask_image_path: name of a fixed mask (mask, mask2, mask3, mask4) or an image file.
        audio_feat_length: video frames of audio context before and after a frame.
        syncnet_config_path: configuration of the SyncNet that supervises sync.
        audio_embeds_cache_dir: where features of the speech are kept; "" = in memory only.
        val_video_path, val_audio_path: lip-synced at every validation; "" = none.
        paired_takes: blank and refer to the clip's other take, where there is one (ours).
        ref_same_prob: fraction of the windows that are their own reference, as in inference (ours).
        cache_latents: encode all clips once and train on the latents (ours).
    """

    mask_image_path: str = "mask"
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])
    syncnet_config_path: str = ""
    audio_embeds_cache_dir: str = ""
    val_video_path: str = ""
    val_audio_path: str = ""
    paired_takes: bool = False
    ref_same_prob: float = 0.0
    cache_latents: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_frames <= 24:
            raise ConfigError(f"data.num_frames: got {self.num_frames}, expected 1 to 24 (the motion modules' reach)")
        if len(self.audio_feat_length) != 2:
            raise ConfigError(f"data.audio_feat_length: got {self.audio_feat_length}, expected two numbers")
        if not 0 <= self.ref_same_prob <= 1:
            raise ConfigError(f"data.ref_same_prob: got {self.ref_same_prob}, expected 0 to 1")


@dataclass
class SyncNetDataConfig(ClipsConfig):
    """Inputs of the SyncNet.

    Attributes:
        latent_space: take VAE latents instead of pixels.
        lower_half: take the lower half of the face only.
        num_val_samples: pairs of the validation.
        gradient_accumulation_steps: batches per update.
        min_shift: smallest shift in frames of a pair out of sync (ours).
        near_negative_prob, near_shift: fraction of the out-of-sync pairs whose shift is at most ``near_shift`` (ours).
        augment: augment brightness, position and sharpness of the frames (ours).
        cache_frames: read all clips once and keep their frames in the device's memory (ours).
    """

    latent_space: bool = False
    lower_half: bool = True
    num_val_samples: int = 2048
    gradient_accumulation_steps: int = 1
    min_shift: int = 1
    near_negative_prob: float = 0.0
    near_shift: int = 6
    augment: bool = False
    cache_frames: bool = False


@dataclass
class LoopConfig:
    """The training loop, shared by U-Net and SyncNet training.

    Attributes:
        seed: of everything.
        max_train_steps: updates; the run ends with the first limit reached.
        max_train_epochs: -1 = no limit.
        max_train_seconds: 0 = no limit (ours).
        mixed_precision_training: half precision where the hardware gains by it.
        mixed_precision: which one: auto, bf16 or fp16 (ours).
        enable_gradient_checkpointing: less memory, about a third more time.
        validation_steps: updates between validations; 0 = at every checkpoint.
        gradient_accumulation_steps: batches per update (ours).
        ema_decay: of the moving average of the weights; 0 = none (ours).
        compile: use ``torch.compile``, which pays off after some minutes on a GPU (ours).
        val_batches: windows of the fixed validation set of a U-Net, in batches of each process (ours).
    """

    seed: int = 1247
    max_train_steps: int = 10000000
    max_train_epochs: int = -1
    max_train_seconds: float = 0.0
    mixed_precision_training: bool = True
    mixed_precision: str = "auto"
    enable_gradient_checkpointing: bool = True
    validation_steps: int = 0
    gradient_accumulation_steps: int = 1
    ema_decay: float = 0.0
    compile: bool = False
    val_batches: int = 8


@dataclass
class LossConfig:
    """One further training loss; its key in the section ``losses`` is its name in logs and curves (ours).

    Attributes:
        target: dotted path of an importable class, or a short name of `latentsync.losses.terms`.
        weight: of its value in the objective, 0 or more; 0 = the loss is not even constructed.
        kwargs: arguments of the constructor.
    """

    target: str = ""
    weight: float = 1.0
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class SyncNetRunConfig(LoopConfig):
    """How a SyncNet is trained.

    Attributes:
        contrastive_weight: see `latentsync.losses.sync.contrastive_loss` (ours).
        mouth_weight: see `latentsync.training.syncnet.task.GuidedSyncNet` (ours).
    """

    contrastive_weight: float = 0.0
    mouth_weight: float = 0.0


@dataclass
class NoiseConfig:
    """How noise is added to windows; see `latentsync.training.unet.denoising.NoiseOptions` (ours)."""

    high_noise_prob: float = 0.0
    high_noise_from: int = 700
    pure_noise_from: int = 1000
    pure_noise_to: int = 1001
    shared_noise_prob: float = 0.0
    background_weight: float = 1.0
    mouth_weight: float = 1.0


@dataclass
class RunConfig(LoopConfig):
    """How a video is sampled unless the command line says otherwise, and how the U-Net is trained.

    Attributes:
        guidance_scale: see `latentsync.diffusion.denoise.SamplerOptions`.
        inference_steps: DDIM steps.
        seed: seed of the noise (-1 draws a fresh one), and of the training.
        keep_detail: give the face the source's own detail back where nothing changed, for a VAE that blurs; costs
            one more decoding per frame (ours).
        pixel_space_supervise: decode the clean estimate for losses on its pixels.
        use_syncnet: add the SyncNet loss.
        sync_loss_weight, perceptual_loss_weight, recon_loss_weight, trepa_loss_weight: of the loss terms.
        motion_loss_weight: of the denoising error's change from frame to frame (ours).
        pixel_loss_weight: of the decoded pixels' absolute error (ours).
        perceptual: "lpips", or "pyramid", which needs no weights (ours).
        trainable_modules: train only parameters whose name contains one of these; empty = all.
        use_mixed_noise, mixed_noise_alpha: see `latentsync.diffusion.noise.mix_noise`.
        uncond_prob: fraction of the windows trained without audio, for classifier-free guidance (ours).
        noise: see there (ours).
    """

    guidance_scale: float = 1.5
    inference_steps: int = 20
    keep_detail: bool = False
    pixel_space_supervise: bool = False
    use_syncnet: bool = False
    sync_loss_weight: float = 0.05
    perceptual_loss_weight: float = 0.1
    recon_loss_weight: float = 1.0
    trepa_loss_weight: float = 10.0
    motion_loss_weight: float = 0.0
    pixel_loss_weight: float = 0.0
    perceptual: str = "lpips"
    trainable_modules: list[str] = field(default_factory=list)
    use_mixed_noise: bool = True
    mixed_noise_alpha: float = 1.0
    uncond_prob: float = 0.0
    noise: NoiseConfig = field(default_factory=NoiseConfig)

    def __post_init__(self) -> None:
        if self.perceptual not in ("lpips", "pyramid"):
            raise ConfigError(f"run.perceptual: got {self.perceptual!r}, expected lpips or pyramid")
        if not 0 <= self.uncond_prob <= 1 or self.val_batches < 0:
            raise ConfigError(
                f"run.uncond_prob from 0 to 1 and run.val_batches from 0 are needed, got {self.uncond_prob} and "
                f"{self.val_batches}"
            )


@dataclass
class CkptConfig:
    """Where training starts and what it leaves.

    Attributes:
        resume_ckpt_path: weights to start from; a U-Net may also start from Stable Diffusion 1.5's; "" = from nothing.
        inference_ckpt_path: the trained SyncNet that U-Net training and evaluation use.
        save_ckpt_steps: updates between checkpoints.
        keep_ckpts: the newest so many checkpoints are kept; -1 = all (ours).
        audio_encoder, vae, videomae, lpips_vgg, lpips_linear: files of the frozen networks; "" = the published ones, or
            the demo model's where the U-Net is of its size (ours).
    """

    resume_ckpt_path: str = ""
    inference_ckpt_path: str = ""
    save_ckpt_steps: int = 10000
    keep_ckpts: int = 3
    audio_encoder: str = ""
    vae: str = ""
    videomae: str = ""
    lpips_vgg: str = ""
    lpips_linear: str = ""


@dataclass
class OptimizerConfig:
    """AdamW and its learning rate; the keys after lr_warmup_steps are ours."""

    lr: float = 1e-5
    scale_lr: bool = False
    max_grad_norm: float = 1.0
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999


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
    """The U-Net, in the words of the published YAML files; see `latentsync.models.unet.spec.UNetSpec`."""

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
class TrepaConfig:
    """The video network whose features TREPA compares; the defaults are VideoMAE v2 ViT-g (ours)."""

    width: int = 1408
    depth: int = 40
    heads: int = 16
    mlp_width: int = 6144
    patch_size: int = 14
    image_size: int = 224


@dataclass
class EncoderConfig:
    """One encoder of a SyncNet; see `latentsync.models.stable_syncnet.SyncNetEncoderSpec`.

    A downsample factor is a number, or [rows, columns]; without ``attn_blocks`` there is no attention.
    """

    in_channels: int = 1
    block_out_channels: list[int] = field(default_factory=list)
    downsample_factors: list[Any] = field(default_factory=list)
    attn_blocks: list[int] = field(default_factory=list)
    dropout: float = 0.0


@dataclass
class SyncNetModelConfig:
    """Both encoders of a SyncNet."""

    audio_encoder: EncoderConfig = field(default_factory=EncoderConfig)
    visual_encoder: EncoderConfig = field(default_factory=EncoderConfig)
