"""How well generated latents follow the speech, without a face detector: a linear reading of the mouth's opening."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

_OPEN = 0  # column of a mouth curve


@dataclass(frozen=True)
class MouthProbe:
    """Reads how much further a face's mouth is open than its reference's, from the difference of their latents.

    Attributes:
        weights: (4 * cells,) of the linear reading.
        cells: (h, w) bool, the repainted cells that are read.
    """

    weights: Tensor
    cells: Tensor

    @classmethod
    def fit(cls, clean: Tensor, reference: Tensor, change: Tensor, cells: Tensor, ridge: float = 0.02) -> "MouthProbe":
        """Fit by ridge regression.

        Args:
            clean: (b, 4, f, h, w) latents of true faces.
            reference: (b, 4, f, h, w) latents of the source faces of the same scene.
            change: (b, f) opening of the true minus opening of the source mouth.
            cells: (h, w) bool.
            ridge: regularisation relative to the inputs' mean power.
        """
        inputs = _inputs(clean, reference, cells)
        target = rearrange(change, "b f -> (b f)").double()
        gram = inputs.mT @ inputs
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return cls(torch.linalg.solve(gram, inputs.mT @ target), cells)

    def change(self, latents: Tensor, reference: Tensor) -> Tensor:
        """(b, f) change of the opening from (b, 4, f, h, w) latents and their reference."""
        read = _inputs(latents, reference, self.cells) @ self.weights
        return rearrange(read, "(b f) -> b f", b=len(latents)).float()


def _inputs(latents: Tensor, reference: Tensor, cells: Tensor) -> Tensor:
    difference = rearrange(latents.double() - reference.double(), "b c f h w -> (b f) c h w")
    return difference[:, :, cells].flatten(1)


def opening_correlation(
    probe: MouthProbe, latents: Tensor, reference: Tensor, mouth: Tensor, source_mouth: Tensor
) -> dict[str, float]:
    """Correlation, within windows, of the opening read from ``latents`` with the true one and with the source's.

    Each window's mean is taken off first: the reading of a face it was not fitted on has an offset.

    Args:
        probe: see there.
        latents: (b, 4, f, h, w).
        reference: (b, 4, f, h, w) of the same frames.
        mouth: (b, f, 7) true curves.
        source_mouth: (b, f, 7) the source's curves.

    Returns:
        r, and r_source: with what the source's mouth did, which a network that merely copies would score.
    """
    opening = probe.change(latents, reference) + source_mouth[..., _OPEN]
    return {
        "r": _correlation(opening, mouth[..., _OPEN]),
        "r_source": _correlation(opening, source_mouth[..., _OPEN]),
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    """Of (b, f) with (b, f), both without their means over the frames."""
    pair = torch.stack([(values - values.mean(dim=1, keepdim=True)).flatten().double() for values in (a, b)])
    return float(torch.corrcoef(pair)[0, 1])
