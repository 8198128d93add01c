"""Makes networks ready for CUDA in half precision: weights laid out for fused kernels, and compiled if asked.

Nothing here changes results by more than rounding, and names of weights stay what they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast

from torch import nn

from latentsync.models.autoencoder import AutoencoderKL, VaeBlock, VaeUpsample
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.attention import GEGLU, Attention
from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.upsample_conv import DoublingConv
from latentsync.models.unet.motion_module import TemporalTransformer
from latentsync.models.unet.resnet import ResnetBlock, Upsample, to_channels_last
from latentsync.models.unet.spatial_transformer import SpatialTransformer
from latentsync.models.unet.unet import UNet3DConditionModel

_COMPILED_SHAPES = 64


class _Packable(Protocol):
    def pack(self) -> None: ...


class _CompiledNorm(FrameGroupNorm):
    has_kernel = False


def keep_compiled_code() -> None:
    """Have torch.compile and Triton keep their code in the user's cache folder, so that only the first start is slow.

    The environment's own TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR go before, and XDG_CACHE_HOME before ~/.cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(cache) / "latentsync" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def _allow_many_shapes() -> None:
    """Let every device, with and without guidance, have compiled code of its own: beyond 8 torch gives up silently."""
    from torch._dynamo import config as settings  # takes a while to import

    for name in ("recompile_limit", "cache_size_limit"):  # the name of now, and of torch before 2.7
        if hasattr(settings, name):
            setattr(settings, name, max(_COMPILED_SHAPES, getattr(settings, name)))


def pack_unet(unet: UNet3DConditionModel, *, copies: bool = True, compiled: bool = False) -> None:
    """Lay the U-Net's weights out for fused kernels, in place.

    copies: also keep weights twice where a kernel needs that, a third of a gigabyte at full size; compiled: also those
    that only a compiled network uses, two gigabytes.
    """
    kernels.enable(unet.conv_in.weight.device)
    if copies:
        unet.pack()
    kinds: list[type[nn.Module]] = [Upsample] if copies else []
    if kernels.fuses_geglu():
        kinds += [GEGLU] if copies else []
        kinds += [SpatialTransformer, TemporalTransformer] if compiled else []
    if kernels.convolves():
        kinds += [ResnetBlock] if compiled else []
    for module in unet.modules():
        if isinstance(module, tuple(kinds)) or (isinstance(module, Attention) and module.packable):
            cast(_Packable, module).pack()


def prepare_vae(vae: AutoencoderKL, *, compiled: bool) -> None:
    """Lay the VAE's weights out channels-last, norm without copies and double in one go; compile both halves if asked.

    In place, for inference only: the state dict no longer fits the config. A compiled half is made for one number of
    pictures at a time: see the chunks of `latentsync.models.vae`.
    """
    if compiled:
        _allow_many_shapes()
    for name, module in vae.named_modules():
        # Inside attention pictures are lists of tokens, which the usual norm is made for.
        if type(module) is nn.GroupNorm and ".attentions." not in name:
            # Without a recorded graph an operation of our own takes the host longer to start than the GPU to do.
            module.__class__ = _CompiledNorm
    for block in cast(list[VaeBlock], list(vae.decoder.up_blocks)):
        if block.upsamplers is not None:
            convs = [cast(VaeUpsample, upsampler).conv for upsampler in block.upsamplers]
            block.upsamplers = nn.ModuleList([DoublingConv(conv) for conv in convs])
    to_channels_last(vae)
    if compiled:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
