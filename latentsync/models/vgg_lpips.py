"""LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924) on VGG-16: perceptual distance of two images.

Entries are named as in the two published files: ``features.N`` as in torchvision's VGG-16, ``linN.model.1`` as in the
``lpips`` package, version 0.1.
"""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.weights.state_dict import read_state_dict
from latentsync.models.weights.strict_loading import load_strictly

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Pictures in [-1, 1] are brought to the mean and deviation that VGG-16 was trained with.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10
_CLASSIFIER = ("classifier.",)


class ChannelWeights(nn.Module):
    """Importance of each channel of a stage's difference, under the name that published files give it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The identity stands in for a dropout.
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, kernel_size=1, bias=False))

    def forward(self, difference: Tensor) -> Tensor:
        """Weigh: mean difference of each channel (n, c) float32 -> (n,) float32."""
        # Not a convolution, which mixed precision would round.
        return (difference * cast(nn.Conv2d, self.model[1]).weight.float().flatten()).sum(dim=1)


class VggLpips(nn.Module):
    """Distance of two images, weighted over five stages of VGG-16; 0 for equal ones."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps = []
        width = 3
        for stage in _STAGES:
            if layers:
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            for channels in stage:
                layers += [nn.Conv2d(width, channels, kernel_size=3, padding=1), nn.ReLU()]
                width = channels
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.lin0, self.lin1, self.lin2, self.lin3, self.lin4 = (ChannelWeights(stage[-1]) for stage in _STAGES)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare images.

        predicted, target (n, 3, h, w) in [-1, 1], sides of 16 or more -> (n,) float32
        """
        weights = (self.lin0, self.lin1, self.lin2, self.lin3, self.lin4)
        pairs = zip(self._extract_features(predicted), self._extract_features(target), weights, strict=True)
        distances = [weigh((ours - theirs).square().mean(dim=(2, 3))) for ours, theirs, weigh in pairs]
        return torch.stack(distances).sum(dim=0)

    def _extract_features(self, images: Tensor) -> list[Tensor]:
        """The last activations of each stage, (n, c, h', w') float32, of unit length at each position."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        hidden, described = (images - shift) / scale, []
        for index, layer in enumerate(self.features):
            hidden = layer(hidden)
            if index in self.taps:
                described.append(F.normalize(hidden.float(), dim=1, eps=_EPS))
        return described


def load_vgg_lpips(vgg: Path, linear: Path, device: torch.device | str, dtype: torch.dtype) -> VggLpips:
    """Build the distance and load its weights.

    vgg: torchvision's VGG-16 file, whose classifier is reported and left out; linear: ``weights/v0.1/vgg.pth`` of the
    lpips package -> network in eval mode on device in dtype, its parameters without gradient. Raises CheckpointError
    when a file does not fit.
    """
    vgg, linear = Path(vgg), Path(linear)
    with torch.device("meta"):
        model = VggLpips()
    together = read_state_dict(vgg) | read_state_dict(linear)
    return load_strictly(model, together, Path(f"{vgg} with {linear}"), (device, dtype), _CLASSIFIER)
