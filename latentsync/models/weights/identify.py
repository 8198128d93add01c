"""Says in words what a set of weights is, so that a wrong file can be named when it is refused."""

from collections.abc import Mapping

from torch import Tensor

# An entry that only this kind of network has, and the network's name; looked up in this order.
_SIGNATURES = (
    ("visual_encoder.0.conv_block.0.weight", "a Wav2Lip-style SyncNet"),
    ("netcnnlip.0.weight", "the evaluation SyncNet (auxiliary/syncnet_v2.model)"),
    ("vgg.0.weight", "the S3FD face detector (auxiliary/sfd_face.pth)"),
    ("res.conv1.weight", "the hyperIQA quality network (auxiliary/koniq_pretrained.pkl)"),
    ("patch_embed.proj.weight", "a VideoMAE v2 transformer (auxiliary/vit_g_hybrid_pt_1200e_ssv2_ft.pth)"),
    ("encoder.positional_embedding", "a Whisper model or its encoder (whisper/*.pt)"),
    ("encoder.blocks.0.attn.query.weight", "a Whisper model or its encoder (whisper/*.pt)"),
    ("quant_conv.weight", "an image autoencoder (VAE)"),
    ("encoder.down_blocks.0.resnets.0.norm1.weight", "an image autoencoder (VAE)"),
)
_PUBLISHED_WIDTH = 320


def describe_state_dict(state_dict: Mapping[str, Tensor]) -> str:
    """Name the network that the entries belong to, with the configurations it fits where that is known.

    state_dict: entry name -> tensor (of any device; only names and shapes are looked at). Never raises.
    """
    if "time_embedding.linear_1.weight" in state_dict and "conv_in.weight" in state_dict:
        return _describe_unet(state_dict)
    if "visual_encoder.conv_in.weight" in state_dict and "audio_encoder.conv_in.weight" in state_dict:
        return _describe_syncnet(state_dict)
    known = next((name for key, name in _SIGNATURES if key in state_dict), None)
    if known is not None:
        return known
    if any(key.startswith("module.") for key in state_dict):
        inner = {key.removeprefix("module."): value for key, value in state_dict.items()}
        return f"{describe_state_dict(inner)}, with a 'module.' prefix of distributed training on every name"
    example = next(iter(state_dict), "nothing")
    return f"none of the known networks ({len(state_dict)} entries, the first is {example})"


def _describe_unet(state_dict: Mapping[str, Tensor]) -> str:
    width, channels = state_dict["conv_in.weight"].shape[:2]
    audio_widths = [str(value.shape[-1]) for key, value in state_dict.items() if key.endswith(".attn2.to_k.weight")]
    audio_width = (audio_widths or ["none"])[0]
    facts = f"{channels} input channels, first level {width} wide, condition width {audio_width}"
    if channels in (4, 9):
        return f"an image U-Net of Stable Diffusion ({facts}), not a lip-sync one"
    kind, configs = _motion_of_unet(state_dict)
    if width != _PUBLISHED_WIDTH:
        configs = "demo or a config of your own"
    return f"a lip-sync U-Net with {kind} ({facts}; configs: {configs})"


def _motion_of_unet(state_dict: Mapping[str, Tensor]) -> tuple[str, str]:
    """Where the motion modules are, and the published configurations that have them there."""
    blocks = {key.partition(".")[0] for key in state_dict if "motion_modules." in key}
    if "down_blocks" in blocks:
        return "motion modules in down and up blocks", "stage2, stage2_512"
    if "up_blocks" in blocks:
        return "motion modules in up blocks only", "stage2_efficient"
    return "no motion modules", "stage1, stage1_512"


def _describe_syncnet(state_dict: Mapping[str, Tensor]) -> str:
    channels = state_dict["visual_encoder.conv_in.weight"].shape[1]
    has_attention = any(".attn.to_q." in key for key in state_dict)
    config = {64: "syncnet_16_latent", 75: "syncnet_25_pixel"}.get(channels, "a config of your own")
    if channels == 48:
        config = "syncnet_16_pixel_attn" if has_attention else "syncnet_16_pixel"
    return f"StableSyncNet ({channels} visual input channels; config: {config})"
