"""Training the demo model's audio encoder: a small Whisper encoder whose features predict the mouth.

A linear probe on every layer predicts sound class and mouth curve, because the U-Net reads all layers through linear
maps; the probe also predicts the curve shortly before and after.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, VISEME_NAMES
from latentsync.training.demo.audio_batches import AudioBatch, TracksOnDevice
from latentsync.training.demo.speech_tracks import SpeechTracks
from latentsync.training.loop.options import UpdateOptions
from latentsync.training.loop.task import Shard
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims, save_audio_encoder

_OFFSETS = (-6, -4, -2, 0, 2, 4, 6)
_ENCODER = "encoder."


@dataclass(frozen=True)
class AudioStageOptions:
    """How the audio encoder is trained.

    Attributes:
        dims: sizes of the encoder.
        batch_size: segments of 30 s per step.
        optimizer: see `UpdateOptions`.
        curve_weight: weight of the mouth curve's squared error beside the cross-entropy of the sound classes.
    """

    dims: AudioEncoderDims = field(default_factory=lambda: AudioEncoderDims(80, 1500, 128, 4, 4))
    batch_size: int = 48
    optimizer: UpdateOptions = field(
        default_factory=lambda: UpdateOptions(
            lr=2e-3,
            betas=(0.9, 0.99),
            decay_vectors=False,
            lr_scheduler="cosine",
            lr_warmup_fraction=0.05,
            ema_decay=0.999,
        )
    )
    curve_weight: float = 12.0


class LinearProbe(nn.Module):
    """Linear maps from every layer's features to sound class and mouth curve at several offsets."""

    def __init__(self, dims: AudioEncoderDims) -> None:
        super().__init__()
        outputs = len(VISEME_NAMES) + len(MOUTH_PARAMETERS) * len(_OFFSETS)
        self.maps = nn.ModuleList([nn.Linear(dims.n_audio_state, outputs) for _ in range(dims.n_audio_layer + 1)])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(b, t, layers, d) -> class logits (b, t, layers, classes), curves (b, t, layers, offsets, 7)."""
        read = torch.stack([layer_map(features[:, :, i]) for i, layer_map in enumerate(self.maps)], dim=2)
        logits, curves = read.split([len(VISEME_NAMES), len(MOUTH_PARAMETERS) * len(_OFFSETS)], dim=-1)
        return logits, rearrange(curves, "b t l (o p) -> b t l o p", o=len(_OFFSETS))


class ProbedEncoder(nn.Module):
    """The encoder with the probe that it is trained through.

    Args:
        dims: sizes of the encoder.
    """

    def __init__(self, dims: AudioEncoderDims) -> None:
        super().__init__()
        self.encoder = AudioEncoder(dims)
        self.reader = LinearProbe(dims)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 80, 3000) -> features (b, t, layers, d), and the probe's class logits and curves, see `LinearProbe`."""
        features = self.encoder(mel)
        return features, *self.reader(features)


def probe_loss(outputs: tuple[Tensor, Tensor, Tensor], batch: AudioBatch, curve_weight: float) -> Tensor:
    """() error of the probe, see `ProbedEncoder.forward`; later layers count more, and features are held to unit power.

    Args:
        outputs: of a `ProbedEncoder`.
        batch: the truth.
        curve_weight: see `AudioStageOptions`.
    """
    features, logits, curves = outputs
    layers = logits.shape[2]
    weights = torch.linspace(0.2, 1.0, layers, device=logits.device)
    valid = rearrange(batch.valid.float(), "b t -> b t 1")
    classes = batch.classes[:, :, None].expand(-1, -1, layers)
    entropy = F.cross_entropy(rearrange(logits.float(), "b t l c -> b c t l"), classes, reduction="none")
    shifted = torch.stack([batch.curves.roll(-offset, dims=1) for offset in _OFFSETS], dim=2)
    error = (curves.float() - shifted[:, :, None]).square().mean(dim=-1)
    importance = torch.tensor([1.0 if offset == 0 else 0.15 for offset in _OFFSETS], device=logits.device)
    per_position = entropy + curve_weight * (error * importance).sum(dim=-1)
    scale = (features.float().square().mean(dim=(0, 1, 3)) - 1.0).square().sum()
    return (per_position * weights * valid).sum() / (valid.sum() * weights.sum()) + 0.01 * scale


class AudioEncoderTask:
    """See `TrainingTask`.

    Args:
        options: see there.
        held_out: speech of the validation.
        seed: of the validation's distortions.
    """

    name = "audio"

    def __init__(self, options: AudioStageOptions, held_out: SpeechTracks, seed: int) -> None:
        probed = ProbedEncoder(options.dims)
        self.network: nn.Module = probed
        self._encoder = probed.encoder
        self.options, self.held_out, self.seed = options, held_out, seed

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self._validation = TracksOnDevice(self.held_out, device)

    def losses(self, network: nn.Module, batch: AudioBatch) -> dict[str, Tensor]:
        """See `TrainingTask.losses`: the error of the probe."""
        return {"total": probe_loss(network(batch.mel), batch, self.options.curve_weight)}

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: fraction of right sounds, and correlation of the mouth opening per track.

        Both on clean and on distorted speech.
        """
        tracks = self._validation
        indices = torch.arange(len(tracks), device=tracks.device)[shard.rank :: shard.world_size]
        if not len(indices):
            return {}
        generator = torch.Generator(tracks.device).manual_seed(self.seed)
        metrics = {}
        for name, batch in (("clean", tracks.clean(indices)), ("distorted", tracks.rerecorded(indices, generator))):
            _, logits, curves = network(batch.mel)
            correct = (logits[:, :, -1].argmax(dim=-1) == batch.classes).float().mean(dim=1)
            opening = curves[:, :, -1, _OFFSETS.index(0), 0].float()
            pairs = zip(opening, batch.curves[:, :, 0], strict=True)
            r = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
            metrics[f"accuracy_{name}"] = float(correct.sum()), len(indices)
            metrics[f"opening_r_{name}"] = sum(r), len(indices)
        return metrics

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """See `TrainingTask.save_samples`: there is nothing to see."""

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """See `TrainingTask.export`: the encoder alone, as inference loads it."""
        # A copy: constructing another encoder would draw from the run's random generator.
        encoder = copy.deepcopy(self._encoder)
        marked = {name: value for name, value in state_dict.items() if name.startswith(_ENCODER)}
        encoder.load_state_dict({name.removeprefix(_ENCODER): value for name, value in marked.items()})
        path = audio_encoder_path(folder)
        save_audio_encoder(encoder, path)
        return path


def audio_encoder_path(checkpoint_folder: Path) -> Path:
    """Where a folder of trained files holds the encoder."""
    return checkpoint_folder / "audio_encoder.safetensors"
