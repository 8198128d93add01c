"""Solvers of the sampling equation by name: DDIM, DPM-Solver++(2M), UniPC, and any that `register_solver` adds.

The multistep solvers go from step to step by the exact solution of the equation's linear part and a polynomial through
the clean estimates of the steps before (Lu et al. 2022, https://arxiv.org/abs/2211.01095, eq. 13 and algorithm 2), and
need fewer steps than DDIM. UniPC (Zhao et al. 2023, https://arxiv.org/abs/2302.04867, B(h) = e^h - 1, order 2) in
addition redoes each step once the estimate at its end is known; that costs no further call of the network.

With alpha the square root of alpha_cumprod, sigma that of 1 - alpha_cumprod, and lambda = log(alpha / sigma), every
multistep step is a weighted sum of latents and clean estimates. The weights are Python floats computed before the first
step.

Importing this module does not import torch, so that command lines can list the names at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from latentsync.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from latentsync.diffusion.ddim import NoiseSchedule


@dataclass(frozen=True)
class Estimate:
    """What the network predicts at one step, readable as noise or as clean latents whatever it was trained for.

    Attributes:
        schedule: the model's noise schedule.
        prediction: the network's output, guided; any shape.
        sample: the noisy latents it was computed for, same shape.
        level: alpha_cumprod of these latents.
    """

    schedule: NoiseSchedule
    prediction: Tensor
    sample: Tensor
    level: float

    @property
    def noise(self) -> Tensor:
        """The predicted noise, same shape as the latents."""
        return self.schedule.as_noise(self.prediction, self.sample, self.level)

    @property
    def clean(self) -> Tensor:
        """The predicted clean latents, same shape."""
        return self.schedule.as_clean(self.prediction, self.sample, self.level)


class SolverStep(Protocol):
    """One step of a solver."""

    def __call__(self, sample: Tensor, estimate: Estimate, state: SolverState) -> tuple[Tensor, SolverState]:
        """Go on to the next noise level.

        Args:
            sample: noisy latents at this step, any shape.
            estimate: the network's prediction for them.
            state: what the step before returned.

        Returns:
            Latents at the next, cleaner level, same shape and dtype, and the state for the next step.
        """
        ...


MakeSteps = Callable[[Sequence[float], Collection[int]], Sequence[SolverStep]]
"""(n + 1 noise levels as rising alpha_cumprod, steps that must not look back) -> n steps; see `multistep_table`."""


@dataclass(frozen=True, eq=False)
class Solver:
    """A registered solver; each registration is another one, so that plans cached for the one before are not reused.

    Attributes:
        make_steps: called once for every combination of sampler options.
        leading_timesteps: sample at the published timesteps, evenly spaced in time. Otherwise the steps are evenly
            spaced in the log signal-to-noise ratio, which solvers of higher order need.
    """

    make_steps: MakeSteps
    leading_timesteps: bool = False

    def steps(self, levels: Sequence[float], restarts: Collection[int]) -> tuple[SolverStep, ...]:
        """The steps between n + 1 noise levels.

        Raises:
            ConfigError: the solver makes another number of steps.
        """
        made = tuple(self.make_steps(levels, restarts))
        if len(made) != len(levels) - 1:
            raise ConfigError(
                f"Solver {self.make_steps}: got {len(made)} steps for {len(levels)} noise levels, expected "
                f"{len(levels) - 1}; return one step for every pair of neighbouring levels"
            )
        return made


@dataclass(frozen=True)
class WeightedSum:
    """Weights of the latents that a step leaves from, and of clean estimates, newest first."""

    sample: float
    cleans: tuple[float, ...]

    def __call__(self, sample: Tensor, cleans: Sequence[Tensor]) -> Tensor:
        """Latents and at least as many clean estimates as weights, all of one shape -> the sum, in the sample's dtype.

        Summed in at least single precision: in the sum large numbers nearly cancel.
        """
        total = (sample if sample.element_size() >= 4 else sample.float()) * self.sample
        for weight, clean in zip(self.cleans, cleans):
            total = total + clean * weight
        return total.to(sample.dtype)


@dataclass(frozen=True)
class MultistepStep:
    """One step: ``predict`` goes on to the next noise level; ``correct``, if any, first redoes the step before."""

    predict: WeightedSum
    correct: WeightedSum | None = None

    def __call__(self, sample: Tensor, estimate: Estimate, state: SolverState) -> tuple[Tensor, SolverState]:
        """See `SolverStep`."""
        return multistep(self, sample, estimate.clean, state)


@dataclass(frozen=True)
class DdimStep:
    """One DDIM step between two noise levels; it needs no earlier estimates."""

    level: float
    to_level: float

    def __call__(self, sample: Tensor, estimate: Estimate, state: SolverState) -> tuple[Tensor, SolverState]:
        """See `SolverStep`."""
        from latentsync.diffusion.ddim import ddim_step  # imports torch

        return ddim_step(sample, estimate.noise, self.level, self.to_level), state


@dataclass(frozen=True)
class SolverState:
    """What a solver remembers from step to step of one window.

    Attributes:
        sample: latents that the last step left from; None before the first.
        cleans: clean estimates, newest first, at most two.
    """

    sample: Tensor | None = None
    cleans: tuple[Tensor, ...] = ()


def multistep_table(
    levels: Sequence[float], restarts: Collection[int] = (), corrected: bool = False
) -> tuple[MultistepStep, ...]:
    """The weights of all steps.

    The first step, the one after each restart and the last one are of first order. The last because it is short
    beside the one before it, so that extrapolating over it would gain nothing.

    Args:
        levels: n + 1 falling noise levels as rising alpha_cumprod: at each of n steps, and where the last one ends.
        restarts: steps that must not look back, for what the network is asked for is another thing from there on.
        corrected: False gives DPM-Solver++(2M), True UniPC.
    """
    steps, known = [], 0  # estimates that the step before this one had
    for index in range(len(levels) - 1):
        if index in restarts:
            known = 0
        correct = _corrector(levels[index - known : index + 1]) if corrected and known else None
        known = min(known + 1, 2)
        first_order = index == len(levels) - 2
        used = 1 if first_order else known
        steps.append(MultistepStep(_predictor(levels[index + 1 - used : index + 2]), correct))
    return tuple(steps)


def multistep(step: MultistepStep, sample: Tensor, clean: Tensor, state: SolverState) -> tuple[Tensor, SolverState]:
    """Go on to the next noise level.

    Args:
        step: from `multistep_table`.
        sample: noisy latents at this step, any shape.
        clean: the clean latents estimated from them, same shape.
        state: what the step before returned.

    Returns:
        Latents at the next, cleaner level, same shape and dtype, and what the next step needs.
    """
    cleans = (clean, *state.cleans)
    if step.correct is not None and state.sample is not None:
        sample = step.correct(state.sample, cleans)
    return step.predict(sample, cleans), SolverState(sample, cleans[:2])


def _log_snr(alpha_cumprod: float) -> float:
    """Lambda: half the logarithm of the signal-to-noise ratio."""
    return 0.5 * math.log(alpha_cumprod / (1 - alpha_cumprod))


def _ratios(level: float, to_level: float) -> tuple[float, float]:
    """(sigma_t / sigma_s, alpha_t * (1 - e^-h)): weights of latents and clean estimate in a first-order step."""
    h = _log_snr(to_level) - _log_snr(level)
    return math.sqrt((1 - to_level) / (1 - level)), -math.sqrt(to_level) * math.expm1(-h)


def _predictor(levels: Sequence[float]) -> WeightedSum:
    """DPM-Solver++ from the last but one level to the last; a third, earlier one makes it second order."""
    keep, gain = _ratios(levels[-2], levels[-1])
    if len(levels) == 2:
        return WeightedSum(keep, (gain,))
    before, here, there = map(_log_snr, levels)
    share = 0.5 * (there - here) / (here - before)
    return WeightedSum(keep, (gain * (1 + share), -gain * share))


def _corrector(levels: Sequence[float]) -> WeightedSum:
    """UniC with B(h) = e^h - 1 (UniPC, algorithm 1) over the step from the last but one level to the last.

    Its first clean estimate is the one at the step's end; a third, earlier level makes it second order.
    """
    keep, gain = _ratios(levels[-2], levels[-1])
    if len(levels) == 2:
        return WeightedSum(keep, (0.5 * gain, 0.5 * gain))
    before, here, there = map(_log_snr, levels)
    h = here - there  # minus the step, as the equations of the data prediction have it
    ratio = (before - here) / -h
    grown = math.expm1(h)
    second = grown / h - 1
    third = second / h - 0.5
    # The two conditions on the weights of the differences to the estimate at the step's beginning, solved.
    earlier = (second - 2 * third) / grown / (1 - ratio)
    end = second / grown - earlier
    return WeightedSum(keep, (gain * end, gain * (1 - end - earlier / ratio), gain * earlier / ratio))


def _ddim_steps(levels: Sequence[float], restarts: Collection[int]) -> tuple[DdimStep, ...]:
    return tuple(DdimStep(*pair) for pair in pairwise(levels))


SOLVERS: dict[str, Solver] = {
    "ddim": Solver(_ddim_steps, leading_timesteps=True),
    "dpm++": Solver(multistep_table),
    "unipc": Solver(partial(multistep_table, corrected=True)),
}
_BUILT_IN = frozenset(SOLVERS)


def register_solver(name: str, make_steps: MakeSteps, *, leading_timesteps: bool = False) -> None:
    """Make a solver available under a name, as the ``solver`` of every job made afterwards.

    Args:
        name: registering one's own name again replaces the solver, so that a notebook's cell can be run twice.
        make_steps: maps noise levels to steps, see `MakeSteps`. Steps that are weighted sums of latents and clean
            estimates are `MultistepStep`; any other callable of that kind may be returned too, see `SolverStep`.
        leading_timesteps: see `Solver`.

    Raises:
        ConfigError: the name is empty or that of a built-in solver.
    """
    if not name or name in _BUILT_IN:
        raise ConfigError(
            f"Solver name: got {name!r}, expected a new one (built in are {', '.join(sorted(_BUILT_IN))})"
        )
    SOLVERS[name] = Solver(make_steps, leading_timesteps)


def solver_names() -> tuple[str, ...]:
    """The names of all registered solvers, the built-in ones first."""
    return tuple(SOLVERS)


def find_solver(name: str) -> Solver:
    """The solver of a name.

    Raises:
        ConfigError: no solver has that name.
    """
    if name not in SOLVERS:
        raise ConfigError(
            f"Solver: got {name!r}, expected one of {', '.join(SOLVERS)}; import the module that registers it"
        )
    return SOLVERS[name]
