"""Whisper's audio encoder returning the hidden states of all layers, and its weight files.

The names of `AudioEncoder`'s parameters are those of published Whisper checkpoints: ``encoder.conv1.weight`` and so on.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from latentsync.errors import CheckpointError, ConfigError
from latentsync.whisper.encoder_layers import EncoderStack

logger = logging.getLogger(__name__)

_SINUSOIDS = "encoder.positional_embedding"
_DAMAGED_FILE_ERRORS = (OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, UnpicklingError)
_KNOWN_WIDTHS = {384: "whisper/tiny.pt", 512: "whisper base", 768: "whisper/small.pt"}


@dataclass(frozen=True)
class AudioEncoderDims:
    """Dimensions of an audio encoder, named as in Whisper checkpoints; the defaults are Whisper tiny.

    Raises:
        ConfigError: a dimension is not positive, or the width is odd or not divisible by the number of heads.
    """

    n_mels: int = 80
    """Mel bands of the input."""
    n_audio_ctx: int = 1500
    """Number of 20 ms positions in one segment; the input has twice as many 10 ms columns."""
    n_audio_state: int = 384
    """Width, equal to the U-Net's cross_attention_dim."""
    n_audio_head: int = 6
    """Attention heads."""
    n_audio_layer: int = 4
    """Transformer blocks."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"audio encoder: {name} must be a positive integer, got {value!r}")
        if self.n_audio_state % self.n_audio_head or self.n_audio_state % 2:
            raise ConfigError(
                f"audio encoder: n_audio_state must be even and a multiple of n_audio_head, got {self.n_audio_state} "
                f"and {self.n_audio_head}"
            )

    @classmethod
    def from_mapping(cls, dims: Mapping[str, Any]) -> "AudioEncoderDims":
        """Extract the encoder's dimensions from a checkpoint's `dims` (which also describes the text decoder).

        Raises:
            CheckpointError: a dimension is missing or invalid.
        """
        try:
            return cls(**{field.name: dims[field.name] for field in fields(cls)})
        except KeyError as error:
            raise CheckpointError(f"the audio encoder's dims lack {error.args[0]!r}; given: {sorted(dims)}") from error
        except ConfigError as error:
            raise CheckpointError(f"the audio encoder's dims are invalid: {error}") from error


class AudioEncoder(nn.Module):
    """Audio encoder whose forward returns the hidden states of every layer for each 20 ms of speech.

    Layer norms and the positional embedding always stay float32, also after `.to(dtype)` or `.half()`: they are where
    Whisper loses accuracy in half precision.

    Args:
        dims: dimensions; also available as `.dims`.
    """

    def __init__(self, dims: AudioEncoderDims) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = EncoderStack(
            dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.conv1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the computation and of the features."""
        return self.encoder.conv1.weight.dtype

    def forward(self, mel: Tensor) -> Tensor:
        """Encode log-mel segments.

        Args:
            mel: (b, n_mels, 2 * n_audio_ctx) log-mel columns, any float dtype; pad short segments with 0.0.

        Returns:
            (b, n_audio_ctx, n_audio_layer + 1, n_audio_state): the convolution output plus positional embedding, then
            the output of each block, all before the final layer norm.

        Raises:
            ValueError: mel has another shape.
        """
        expected = (self.dims.n_mels, 2 * self.dims.n_audio_ctx)
        if mel.ndim != 3 or tuple(mel.shape[1:]) != expected:
            raise ValueError(f"audio encoder: expected mel of shape (b, {expected[0]}, {expected[1]}), got {mel.shape}")
        hidden = nn.functional.gelu(self.encoder.conv1(mel.to(self.dtype)))
        hidden = nn.functional.gelu(self.encoder.conv2(hidden))
        hidden = rearrange(hidden, "b d t -> b t d")
        states = [(hidden + self.encoder.positional_embedding).to(self.dtype)]
        for block in self.encoder.blocks:
            states.append(block(states[-1]))
        return torch.stack(states, dim=2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AudioEncoder":
        super()._apply(fn, recurse)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.data = module.weight.data.float()
                module.bias.data = module.bias.data.float()
        self.encoder.positional_embedding = self.encoder.positional_embedding.float()
        return self


def load_audio_encoder(
    path: str | os.PathLike[str],
    device: torch.device | str,
    dtype: torch.dtype,
    cross_attention_dim: int | None = None,
) -> AudioEncoder:
    """Load an audio encoder in evaluation mode, without gradients.

    Args:
        path: a Whisper checkpoint in OpenAI's layout (``.pt`` with "dims" and "model_state_dict"), or a
            ``.safetensors`` written by `save_audio_encoder`.
        device: of the weights.
        dtype: precision of the computation; layer norms stay float32.
        cross_attention_dim: width that the U-Net expects; None accepts any.

    Raises:
        CheckpointError: the file is missing, damaged, not an audio encoder, or its width differs from the U-Net's.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"audio encoder not found: {path} is not a file; see checkpoints/README.md for how to get it"
        )
    dims, state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_openai(path)
    if cross_attention_dim is not None and dims.n_audio_state != cross_attention_dim:
        matching = _KNOWN_WIDTHS.get(cross_attention_dim)
        advice = f"use {matching}" if matching else "use the audio encoder that this U-Net was trained with"
        raise CheckpointError(
            f"audio encoder {path} has width {dims.n_audio_state}, but the configured U-Net has cross_attention_dim "
            f"{cross_attention_dim}; {advice}, or a configuration that matches this encoder"
        )
    encoder = AudioEncoder(dims)
    _load_strictly(encoder, state, path)
    return encoder.to(device=device, dtype=dtype).eval().requires_grad_(False)


def save_audio_encoder(encoder: AudioEncoder, path: str | os.PathLike[str]) -> None:
    """Write `encoder` as fp16 safetensors with its dimensions in the metadata key "dims" (JSON).

    The sinusoidal positional embedding is omitted: it is computed from the dimensions. The file is written atomically.

    Raises:
        CheckpointError: a weight overflows fp16.
    """
    path = Path(path)
    state: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        if name == _SINUSOIDS:
            continue
        state[name] = value.detach().to("cpu", torch.float16).contiguous()
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(
                f"cannot save the audio encoder: {name} has values that are not finite in fp16; check the weights"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        partial = Path(folder) / path.name
        save_file(state, partial, metadata={"dims": json.dumps(asdict(encoder.dims))})
        os.replace(partial, path)


def _read_safetensors(path: Path) -> tuple[AudioEncoderDims, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"audio encoder {path} cannot be read ({error}); fetch it again") from error
    if "dims" not in metadata:
        raise CheckpointError(
            f"{path} is not an audio encoder: its metadata lacks 'dims'; expected a file written by save_audio_encoder"
        )
    return AudioEncoderDims.from_mapping(json.loads(metadata["dims"])), state


def _read_openai(path: Path) -> tuple[AudioEncoderDims, dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED_FILE_ERRORS as error:
        # Torch's own message advises loading the file with weights_only=False, which is unsafe.
        reason = "not a plain PyTorch weights file" if isinstance(error, UnpicklingError) else error
        raise CheckpointError(f"audio encoder {path} cannot be read ({reason}); fetch it again") from error
    if not isinstance(content, dict) or not {"dims", "model_state_dict"} <= content.keys():
        found = sorted(map(str, content))[:5] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is not a Whisper checkpoint: expected the entries 'dims' and 'model_state_dict', found {found}"
        )
    encoder_state = {key: value for key, value in content["model_state_dict"].items() if key.startswith("encoder.")}
    return AudioEncoderDims.from_mapping(content["dims"]), encoder_state


def _load_strictly(encoder: AudioEncoder, state: dict[str, Tensor], path: Path) -> None:
    """Load all weights by name; only the sinusoidal positional embedding may be missing and is then computed."""
    try:
        outcome = encoder.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"audio encoder {path} contradicts its own dims {encoder.dims}: {error}") from error
    missing = [key for key in outcome.missing_keys if key != _SINUSOIDS]
    if missing or outcome.unexpected_keys:
        raise CheckpointError(
            f"audio encoder {path} does not match its own dims {encoder.dims}: missing {missing[:5]}, unknown "
            f"{outcome.unexpected_keys[:5]}; fetch it again"
        )
