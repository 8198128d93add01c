"""Plans the network calls of a window: at every step guided or not, with fresh or cached deep features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FeatureCacheMode = Literal["fresh", "keep", "reuse"]
"""Deep features of a step: computed, computed and cached, or taken from the cache."""


@dataclass(frozen=True)
class PlannedStep:
    """One call of the network.

    Attributes:
        timestep: 0..999.
        guidance_scale: as `NoisePredictor.predict` takes it.
        cache_mode: as `NoisePredictor.predict` takes it.
        guidance_changes: guidance begins or ends here, so that earlier predictions are not comparable.
    """

    timestep: int
    guidance_scale: float
    cache_mode: FeatureCacheMode
    guidance_changes: bool = False

    @property
    def kind(self) -> str:
        """What the call costs: "full" or "shallow", and "guided" where the network runs twice."""
        depth = "shallow" if self.cache_mode == "reuse" else "full"
        return f"{depth} guided" if self.guidance_scale > 1 else depth


def plan_steps(
    timesteps: Sequence[int],
    guidance_scale: float,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    cache_interval: int = 1,
) -> tuple[PlannedStep, ...]:
    """Plan a window's steps.

    Guidance may be limited to an interval of noise levels (Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724).
    Cached features hold both branches of a guided call, so they are recomputed where guidance begins or ends.

    Args:
        timesteps: from noisy to clean.
        guidance_scale: inside the interval; 1 outside.
        guidance_interval: fractions of the steps, 0 the noisiest end and 1 the cleanest: step i of n is inside if its
            middle, (i + 0.5) / n, is.
        cache_interval: every how many steps deep features are computed; 1 computes them always.
    """
    low, high = guidance_interval
    steps: list[PlannedStep] = []
    age = 0  # steps since deep features were cached
    for index, timestep in enumerate(timesteps):
        inside = low <= (index + 0.5) / len(timesteps) <= high
        scale = guidance_scale if inside else min(guidance_scale, 1.0)
        changes = index > 0 and (scale > 1) != (steps[-1].guidance_scale > 1)
        age = 0 if index == 0 or changes or age + 1 >= cache_interval else age + 1
        mode: FeatureCacheMode = "reuse" if age else "keep"
        steps.append(PlannedStep(timestep, scale, "fresh" if cache_interval == 1 else mode, changes))
    return tuple(steps)


def network_calls(plan: Sequence[PlannedStep]) -> dict[str, int]:
    """Number of network calls of each kind in a plan; see `PlannedStep.kind`."""
    return dict(Counter(step.kind for step in plan))
