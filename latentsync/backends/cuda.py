"""Prepares networks for CUDA in half precision: fused modules, packed weights, compilation.

How the fast path is attached
-----------------------------
`latentsync.models` holds plain networks: every projection is a module that is called. Nothing there imports kernels.
`prepare_unet` turns a loaded U-Net into a fast one from outside:

1. `latentsync.models.kernels.dispatch.enable` tries the Triton kernels on the device; what runs decides the
   `FusedLayout`, that is which weights are kept a second time in a kernel's layout.
2. `latentsync.backends.adapters` merges attached adapters (peft) into their base layers, and refuses layers with hooks
   or of an unknown class: fused code reads weights and no longer calls the layers that hold them.
3. `latentsync.backends.fused.unet.fuse_unet` replaces levels, input and output layers in the tree. A fused module is
   built from the plain one, shares its Parameters and keeps their names, but holds them as `LayerWeights`, which no
   adapter library wraps. Layers of one level share a `ResidualStream`; under torch.compile it accumulates in place.
4. `GraphPredictor` compiles the prepared network if asked, and captures it as CUDA graphs.

Results differ from those of the plain network by rounding only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from torch import nn

from latentsync.backends.fused.frame_norm import FusedGroupNorm
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.unet import fuse_unet
from latentsync.backends.upsample_conv import DoublingConv
from latentsync.models.autoencoder import AutoencoderKL, VaeBlock, VaeUpsample
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.unet.resnet import to_channels_last
from latentsync.models.unet.unet import UNet3DConditionModel

_MAX_COMPILED_SHAPES = 64


class _VaeGroupNorm(FusedGroupNorm):
    has_kernel = False


def keep_compiled_code() -> None:
    """Keep the code that torch.compile and Triton generate in the user's cache folder, so that later starts are fast.

    TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR take precedence, and XDG_CACHE_HOME over ~/.cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(cache) / "latentsync" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def _allow_many_shapes() -> None:
    """Allow compiled code for every device, with and without guidance: beyond 8 variants torch gives up silently."""
    from torch._dynamo import config as settings  # takes a while to import

    for name in ("recompile_limit", "cache_size_limit"):  # the current name, and that of torch before 2.7
        if hasattr(settings, name):
            setattr(settings, name, max(_MAX_COMPILED_SHAPES, getattr(settings, name)))


def prepare_unet(unet: UNet3DConditionModel, *, copies: bool = True, compiled: bool = False) -> None:
    """Replace the U-Net's modules by fused ones, in place and for inference only.

    copies: also keep weights twice where a kernel needs that, a third of a gigabyte at full size; compiled: also those
    that only a compiled network uses, two gigabytes. Raises ConfigError for adapters and hooks that would be lost.
    """
    kernels.enable(next(unet.parameters()).device)
    layout = FusedLayout(
        inputs=copies,
        upsample=copies,
        geglu=copies and kernels.fuses_geglu(),
        outputs=compiled and kernels.fuses_geglu(),
        winograd=compiled and kernels.convolves(),
    )
    fuse_unet(unet, layout)


def prepare_vae(vae: AutoencoderKL, *, compiled: bool) -> None:
    """Replace norms and upsampling of the VAE by faster ones, in channels-last memory; compile both halves if asked.

    In place, for inference only: the state dict no longer fits the config. A compiled half is specialized for one
    number of images at a time: see the chunks of `latentsync.models.vae`.
    """
    if compiled:
        _allow_many_shapes()
    for name, module in vae.named_modules():
        # Attention norms work on token sequences, which the library's kernel is made for.
        if type(module) is nn.GroupNorm and ".attentions." not in name:
            # Without a captured graph, launching a custom operation costs the host more time than the GPU spends on it.
            module.__class__ = _VaeGroupNorm
    for block in cast(list[VaeBlock], list(vae.decoder.up_blocks)):
        if block.upsamplers is not None:
            convs = [cast(VaeUpsample, upsampler).conv for upsampler in block.upsamplers]
            block.upsamplers = nn.ModuleList([DoublingConv(conv) for conv in convs])
    to_channels_last(vae)
    if compiled:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
