"""RePaint: a run goes back up some levels again and again, so that what it makes fits what is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import Grid, Path, Process, StepContext, StepSampler, get_sampler
from kdiff_core.parameters import whole

from .wrapped import Wrapped, cannot


def _one_step(instance: Any, attribute: Any, solver: Any) -> None:
    """Validate the solver (a validator of attrs)."""
    if solver.memory:
        raise cannot(instance, solver, f"reads {solver.memory} earlier points, which a jump leaves behind")
    if solver.rises:
        raise cannot(instance, solver, "goes back up itself; wrap the solver in it")


@frozen
class Repaint(Wrapped):
    """Resampling: on the way down noise is added again, and a few steps are gone again, many times.

    Lugmayr et al. 2022, arXiv:2201.09865, section 4.2: at the lowest level above 0 and at every `jump`-th
    above it the run jumps up `jump` levels, `times` times, and goes down again. Around a denoiser that keeps
    a known region ('inpaint') each round brings the rest nearer to what goes with it. A jump never ends at
    level 1 of a flow path, from which nothing of the state would be left. The noise is exact, so the
    distribution has the solver's order.

    Attributes:
        solver: A solver without memory, a sampler or its name.
        jump: How many levels it jumps up; the paper takes 10 of 250. A run of fewer levels never jumps.
        times: How often at each place, the paper's number of resamplings less 1, which is 9 there; 0 is the
            solver alone.
    """

    solver: StepSampler = field(default="ddpm", converter=get_sampler, validator=_one_step)
    jump: int = field(default=5, validator=whole(1))
    times: int = field(default=3, validator=whole(0))

    @property
    def stochastic(self) -> bool:
        """Whether it jumps, or the solver draws noise."""
        return self.times > 0 or self.solver.stochastic

    @property
    def rises(self) -> bool:
        """Whether it jumps."""
        return self.times > 0

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what short runs break where noise comes from the jumps alone."""
        if not self.times or self.solver.stochastic:
            return self.solver.known_failures
        why = f"a run of fewer than {self.jump} levels never jumps"
        return {**self.solver.known_failures, "noise_if_and_only_if_declared": why}

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The levels with those of the rounds after each level that is jumped from."""
        levels = list(self.solver.prepare(grid, path, process))
        first = 0 if path.ratio(levels[0]) < math.inf else 1
        lowest = len(levels) - (2 if levels[-1] == 0 else 1)
        places = set(range(lowest, first + self.jump - 1, -self.jump))
        if not self.times or not places or levels[0] < levels[-1]:
            return grid if tuple(levels) == tuple(grid) else levels
        visited = []
        for i, level in enumerate(levels):
            visited += [level, *(levels[i - self.jump : i + 1] * self.times if i in places else ())]
        return visited

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with the solver, or up with noise."""
        if sigma_next <= sigma:
            return self.solver.step(ctx, x, sigma, sigma_next)
        return ctx.renoise(x, sigma, sigma_next, ctx.noise(sigma, sigma_next, "repaint"))
