"""Stage `audio`: a small Whisper-type encoder that learns to hear what the mouth does.

Every layer's features must tell sound class and mouth curve through one linear map, because the U-Net reads all layers
through linear maps; the last layers also tell the curve shortly before and after.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, VISEME_NAMES
from latentsync.training.demo.audio_batches import AudioBatch, TracksOnDevice
from latentsync.training.demo.optimizer import MasterOptimizer, OptimizerOptions
from latentsync.training.demo.run_log import RunLog, write_json
from latentsync.training.demo.speech_tracks import SpeechTracks
from latentsync.training.demo.stage import StageContext
from latentsync.training.demo.time_budget import one_cycle
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims, save_audio_encoder

logger = logging.getLogger(__name__)

_OFFSETS = (-6, -4, -2, 0, 2, 4, 6)


@dataclass(frozen=True)
class AudioStageOptions:
    """How the audio encoder is made.

    Attributes:
        dims: sizes of the encoder.
        batch_size: segments of 30 s a step.
        optimizer: see there.
        curve_weight: weight of the mouth curve's squared error against the sound classes' cross entropy.
    """

    dims: AudioEncoderDims = field(default_factory=lambda: AudioEncoderDims(80, 1500, 128, 4, 4))
    batch_size: int = 48
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(lr=2e-3))
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


def probe_loss(probe: LinearProbe, features: Tensor, batch: AudioBatch, curve_weight: float) -> Tensor:
    """How badly the features (b, t, layers, d) tell the batch's sounds and curves; later layers count more."""
    logits, curves = probe(features)
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


def train_audio(
    options: AudioStageOptions, tracks: SpeechTracks, held_out: SpeechTracks, context: StageContext
) -> AudioEncoder:
    """Train the encoder until the stage's budget is used; saves it regularly.

    Args:
        options: see there.
        tracks: training speech.
        held_out: speech for the figures at the end.
        context: device, budget, folders.

    Returns:
        The averaged encoder in float32, in evaluation mode.
    """
    log = RunLog(context.folder, "audio")
    training = TracksOnDevice(tracks, context.device)
    encoder, probe = AudioEncoder(options.dims).to(context.device), LinearProbe(options.dims).to(context.device)
    both = nn.ModuleDict({"encoder": encoder, "reader": probe})
    optimizer = MasterOptimizer(both, options.optimizer, torch.float32)
    budget = context.budget()
    while budget.step():
        batch = training.augmented(options.batch_size, context.generator)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=context.half):
            features = encoder(batch.mel)
            loss = probe_loss(probe, features, batch, options.curve_weight)
        optimizer.step(loss, one_cycle(budget.fraction))
        if context.log_due():
            log.write(step=optimizer.steps, loss=loss.item(), skipped=optimizer.skipped)
        if context.save_due():
            _averaged(both, optimizer, options, context)
    result = _averaged(both, optimizer, options, context)
    probe.load_state_dict(_part_of(optimizer.averaged_state(), "reader."))
    metrics = audio_metrics(result, probe, TracksOnDevice(held_out, context.device), context.generator)
    log.write(step=optimizer.steps, **metrics)
    write_json(context.folder / "validation.json", {"audio": {"steps": optimizer.steps, **metrics}})
    return result


@torch.no_grad()
def audio_metrics(
    encoder: AudioEncoder, probe: LinearProbe, tracks: TracksOnDevice, generator: torch.Generator
) -> dict[str, float]:
    """Share of sounds told right and correlation of the mouth's opening, on clean and on distorted speech."""
    indices = torch.arange(len(tracks), device=tracks.device)
    metrics = {}
    for name, batch in (("clean", tracks.clean(indices)), ("distorted", tracks.rerecorded(indices, generator))):
        logits, curves = probe(encoder(batch.mel).float())
        correct = (logits[:, :, -1].argmax(dim=-1) == batch.classes).float().mean()
        opening = curves[:, :, -1, _OFFSETS.index(0), 0]
        pair = torch.stack([opening.flatten(), batch.curves[:, :, 0].flatten()])
        metrics[f"accuracy_{name}"] = float(correct)
        metrics[f"opening_r_{name}"] = float(torch.corrcoef(pair)[0, 1])
    return metrics


def _averaged(
    both: nn.ModuleDict, optimizer: MasterOptimizer, options: AudioStageOptions, context: StageContext
) -> AudioEncoder:
    averaged = AudioEncoder(options.dims)
    averaged.load_state_dict(_part_of(optimizer.averaged_state(), "encoder."))
    save_audio_encoder(averaged, audio_encoder_path(context.checkpoint_folder))
    return averaged.to(context.device).eval().requires_grad_(False)


def _part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def audio_encoder_path(checkpoint_folder: Path) -> Path:
    """Where the stage leaves its encoder."""
    return checkpoint_folder / "audio_encoder.safetensors"
