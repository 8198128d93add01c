"""Named combinations of sampler options, and how they combine with user options and model defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from latentsync.errors import ConfigError

if TYPE_CHECKING:
    from latentsync.diffusion.denoise import SamplerOptions

PUBLISHED_CACHE_INTERVAL = 3
WHOLE = (0.0, 1.0)
_MIN_FULL_STEPS = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Speed:
    """One combination; the number of steps and the guidance follow from the model's own.

    Attributes:
        steps_ratio: number of steps relative to the model's own.
        min_steps: but never fewer than these, nor more than the model's own.
        solver: see `SamplerOptions`.
        cache_interval: see `SamplerOptions`; less where deep features would be computed at fewer than three steps,
            for then they are too old.
        guidance_interval: see `SamplerOptions`.
    """

    steps_ratio: float = 1.0
    min_steps: int = 1
    solver: str = "ddim"
    cache_interval: int = 1
    guidance_interval: tuple[float, float] = WHOLE

    def steps(self, model_steps: int) -> int:
        """Steps for a model that usually takes ``model_steps``."""
        return min(max(round(model_steps * self.steps_ratio), self.min_steps), model_steps)

    def cache(self, steps: int) -> int:
        """Cache interval for ``steps``."""
        return max(min(self.cache_interval, steps // _MIN_FULL_STEPS), 1)


SPEEDS = {
    "exact": Speed(),
    "fast": Speed(0.75, 3, "dpm++", cache_interval=PUBLISHED_CACHE_INTERVAL),
    "realtime": Speed(0.3, 2, "dpm++", cache_interval=2, guidance_interval=(0.0, 0.7)),
}


@dataclass(frozen=True)
class SamplerRequest:
    """User options; None takes the option from the speed, and through it from the model.

    Attributes:
        speed: a key of `SPEEDS`.
        deepcache: the published feature cache, which is ``cache_interval`` 3.
        steps, guidance_scale, solver, cache_interval, guidance_interval, published: see `SamplerOptions`.
    """

    speed: str = "exact"
    steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    cache_interval: int | None = None
    deepcache: bool = False
    guidance_interval: tuple[float, float] | None = None
    published: bool = False

    def options(self, model_steps: int, model_guidance: float) -> SamplerOptions:
        """Join the request with the speed's and the model's own values.

        Args:
            model_steps: the model's own number of steps.
            model_guidance: its own guidance scale.

        Raises:
            ConfigError: a value is out of range, the speed is unknown, or two cache intervals are asked for.
        """
        from latentsync.diffusion.denoise import SamplerOptions  # takes seconds to import, and requests are made early

        if self.speed not in SPEEDS:
            raise ConfigError(f"Speed: got {self.speed!r}, expected one of {', '.join(SPEEDS)}")
        speed = SPEEDS[self.speed]
        steps = _given(self.steps, speed.steps(model_steps))
        return SamplerOptions(
            steps=steps,
            guidance_scale=_given(self.guidance_scale, model_guidance),
            cache_interval=_given(self._cache(), speed.cache(steps)),
            published=self.published,
            solver=_given(self.solver, speed.solver),
            guidance_interval=_given(self.guidance_interval, speed.guidance_interval),
            model_steps=model_steps,
        )

    def _cache(self) -> int | None:
        if not self.deepcache:
            return self.cache_interval
        if self.cache_interval not in (None, PUBLISHED_CACHE_INTERVAL):
            raise ConfigError(
                f"The published feature cache (enable_deepcache) has interval {PUBLISHED_CACHE_INTERVAL}, but "
                f"cache_interval is {self.cache_interval}: give one of them"
            )
        return PUBLISHED_CACHE_INTERVAL


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
