"""What the network is asked for at every step of a window: guided or not, and with which deep features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Features = Literal["fresh", "keep", "reuse"]
"""What becomes of the network's deep features at a step: computed, computed and kept, or taken from the last kept."""


@dataclass(frozen=True)
class PlannedStep:
    """One call of the network.

    Attributes:
        timestep: 0..999.
        guidance_scale: as `NoisePredictor.predict` takes it.
        features: as `NoisePredictor.predict` takes it.
        switches: guidance begins or ends here, so that earlier predictions say something else.
    """

    timestep: int
    guidance_scale: float
    features: Features
    switches: bool = False

    @property
    def kind(self) -> str:
        """What the call costs: "full" or "shallow", and "guided" where the network runs twice."""
        depth = "shallow" if self.features == "reuse" else "full"
        return f"{depth} guided" if self.guidance_scale > 1 else depth


def plan_steps(
    timesteps: Sequence[int],
    guidance_scale: float,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    cache_interval: int = 1,
) -> tuple[PlannedStep, ...]:
    """Plan a window's steps.

    Guidance may be left to an interval of noise levels (Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724).
    Kept features hold both halves of a guided call, so where guidance begins or ends they are computed anew.

    Args:
        timesteps: from noisy to clean.
        guidance_scale: inside the interval; 1 outside.
        guidance_interval: shares of the steps, 0 the noisiest end and 1 the cleanest: step i of n is inside if its
            middle, (i + 0.5) / n, is.
        cache_interval: every how many steps deep features are computed; 1 computes them always.
    """
    low, high = guidance_interval
    steps: list[PlannedStep] = []
    age = 0  # steps since deep features were kept
    for index, timestep in enumerate(timesteps):
        inside = low <= (index + 0.5) / len(timesteps) <= high
        scale = guidance_scale if inside else min(guidance_scale, 1.0)
        switches = index > 0 and (scale > 1) != (steps[-1].guidance_scale > 1)
        age = 0 if index == 0 or switches or age + 1 >= cache_interval else age + 1
        cached: Features = "reuse" if age else "keep"
        steps.append(PlannedStep(timestep, scale, "fresh" if cache_interval == 1 else cached, switches))
    return tuple(steps)


def network_calls(plan: Sequence[PlannedStep]) -> dict[str, int]:
    """How often a plan calls the network in which way; see `PlannedStep.kind`."""
    return dict(Counter(step.kind for step in plan))
