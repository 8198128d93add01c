"""Initializes the lip-sync U-Net from an image U-Net of Stable Diffusion 1.x.

Both have the same layers under the same names, except for more input channels (initialized to zero), keys and values of
the audio condition (initialized at random) and motion modules (initialized to identity). A window of one frame
therefore initially gives the image network's own result.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from latentsync.errors import CheckpointError
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.weights.identify import describe_state_dict
from latentsync.models.weights.state_dict import assign_tensors, read_state_dict

_LOGGER = logging.getLogger(__name__)
_INPUT_CONV = "conv_in.weight"
_MOTION = "motion_modules."
# A file that fills a smaller fraction of the image layers belongs to another network.
_MIN_LOADED_FRACTION = 0.5


@dataclass(frozen=True)
class Inflation:
    """What became of each entry of the lip-sync network, and of the file's.

    Attributes:
        taken: filled from the file.
        widened: filled from the file, with zeros for the input channels that the image network lacks.
        fresh: image layers that start at random because the file lacks them or has them in another shape.
        motion: motion modules' entries, which start as identity.
        unused: the file's entries that no layer takes.
    """

    taken: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    motion: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def inflate_unet(
    spec: UNetSpec, path: Path, device: torch.device | str, dtype: torch.dtype
) -> tuple[UNet3DConditionModel, Inflation]:
    """Build the lip-sync U-Net and start it from an image U-Net's weights.

    Args:
        spec: sizes of the lip-sync network.
        path: diffusers' ``unet/diffusion_pytorch_model.safetensors`` (or .bin) of Stable Diffusion 1.x.
        device: of the result.
        dtype: of the result.

    Returns:
        The network in eval mode, and what was taken from the file and what was not; the latter is logged too.

    Raises:
        CheckpointError: the file cannot be read, or fills less than half of the layers.
    """
    path = Path(path)
    source = read_state_dict(path)
    with torch.device("meta"):
        model = UNet3DConditionModel(spec)
    expected = model.state_dict()
    usable, report = _match(expected, source)
    filled, image_layers = len(usable), len(expected) - len(report.motion)
    if filled < _MIN_LOADED_FRACTION * image_layers:
        raise CheckpointError(
            f"{path} fits {filled} of the {image_layers} image layers' entries of the configured U-Net "
            f"({describe_state_dict(expected)}). The file looks like {describe_state_dict(source)}. Expected is the "
            "U-Net of Stable Diffusion 1.x in diffusers' layout: unet/diffusion_pytorch_model.safetensors."
        )
    assign_tensors(model, usable, path, device, dtype)
    _log(path, report, image_layers)
    return model.eval(), report


def _match(expected: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Inflation]:
    """The tensors that fit, by the lip-sync network's names, and the report."""
    usable, report = {}, Inflation()
    for key, wanted in expected.items():
        if _MOTION in key:
            report.motion.append(key)
            continue
        tensor = _fit(key, source.get(key), wanted.shape)
        if tensor is None:
            report.fresh.append(key)
            continue
        usable[key] = tensor
        (report.taken if tensor.numel() == source[key].numel() else report.widened).append(key)
    # A layer is loaded as a whole or not at all.
    fresh_layers = {key.rpartition(".")[0] for key in report.fresh}
    for key in [key for key in usable if key.rpartition(".")[0] in fresh_layers]:
        del usable[key]
        (report.taken if key in report.taken else report.widened).remove(key)
        report.fresh.append(key)
    report.unused.extend(key for key in source if key not in usable)
    return usable, report


def _fit(key: str, tensor: Tensor | None, wanted: torch.Size) -> Tensor | None:
    """The tensor in the wanted shape where that is possible without inventing values other than zeros."""
    if tensor is None or tensor.shape == wanted:
        return tensor
    # Later image networks project with linear layers, which are equivalent to 1x1 convolutions.
    squeezed, size = (tuple(length for length in shape if length != 1) for shape in (tensor.shape, wanted))
    if squeezed == size:
        return tensor.reshape(wanted)
    grows = tensor.ndim == 4 and tensor.shape[1] < wanted[1]
    if key == _INPUT_CONV and grows and (tensor.shape[0], *tensor.shape[2:]) == (wanted[0], *wanted[2:]):
        # The noisy latents come first, as in the image network.
        wide = tensor.new_zeros(wanted)
        wide[:, : tensor.shape[1]] = tensor
        return wide
    return None


def _log(path: Path, report: Inflation, image_layers: int) -> None:
    _LOGGER.info("%s: %d of %d entries taken", path, len(report.taken) + len(report.widened), image_layers)
    for what, keys in (
        ("get zeros for the input channels that the file lacks", report.widened),
        ("start at random, being absent from the file or of another shape in it", report.fresh),
        ("of motion modules start as identity", report.motion),
        ("of the file are not used", report.unused),
    ):
        if keys:
            _LOGGER.info("%s: %d entries %s, e.g. %s", path, len(keys), what, keys[0])
