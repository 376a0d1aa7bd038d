"""Restart: a part of the trajectory is gone through again from fresh noise, for any one-step solver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import optional

from kdiff_core import Grid, Path, Process, StepContext, StepSampler, get_sampler
from kdiff_core.errors import ParameterError
from kdiff_core.parameters import not_negative, positive, whole
from kdiff_core.sampler import check_one_step

from .wrapped import Wrapped

RHO = 7.0  # of Karras et al. 2022, arXiv:2206.00364, eq. 5


def _one_step_or_restart(instance: Restart, attribute: Attribute[Any], solver: Any) -> None:
    if not isinstance(solver, Restart):
        check_one_step(instance, attribute, solver)
    elif solver.s_noise not in (1.0, instance.s_noise):
        raise ParameterError(
            f"Restart: s_noise={instance.s_noise}, but the solver restarts with s_noise={solver.s_noise}; "
            "restarts on several intervals share the outer one's"
        )


def _above_low(instance: Restart | A1111Restart, attribute: Attribute[Any], value: float) -> None:
    if value <= instance.restart_low:
        raise ParameterError(f"Restart: restart_high={value} is not above restart_low={instance.restart_low}")


@frozen
class Restart(Wrapped):
    """Restart sampling: noise is added to a state near the end, and the way down is gone again.

    Xu et al. 2023, arXiv:2306.14878, Algorithm 1; the levels of the interval are noise over signal, the same
    on every path. Several intervals are a Restart of a Restart, in any order. The run restarts from the level
    of the grid that is nearest to `restart_low`, if that is below `restart_high`. The noise is exact, so the
    distribution has the solver's order.

    Attributes:
        solver: The solver, a sampler or its name; or a Restart on another interval.
        restart_low: Level, as noise over signal, at which the run restarts.
        restart_high: Level that it goes up to, at most the grid's first.
        restart_steps: Steps of each way down, spaced as Karras et al. do. Default: by the grid's own levels.
        restart_times: How often it restarts; 0 is the solver alone.
        s_noise: Factor of the noise, on the intervals of a solver that restarts too.
    """

    solver: StepSampler = field(default="heun", converter=get_sampler, validator=_one_step_or_restart)
    restart_low: float = field(default=0.1, converter=float, validator=positive, metadata={"unit": "sigma"})
    restart_high: float = field(
        default=2.0, converter=float, validator=[positive, _above_low], metadata={"unit": "sigma"}
    )
    restart_steps: int | None = field(default=None, validator=optional(whole(1)))
    restart_times: int = field(default=1, validator=whole(0))
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    @property
    def stochastic(self) -> bool:
        """Whether it restarts."""
        return self.restart_times > 0 or self.solver.stochastic

    @property
    def rises(self) -> bool:
        """Whether it restarts."""
        return self.restart_times > 0 or self.solver.rises

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What a number of steps that stays the same breaks."""
        if self.restart_steps is None or not self.restart_times:
            return self.solver.known_failures
        why = "the way down has a fixed number of steps, whose error more steps elsewhere do not reduce"
        return {"output_distribution": why}

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The levels with those of the restarts after the level at which they begin."""
        levels = list(self.solver.prepare(grid, path, process))
        ratios = [path.ratio(level) for level in levels]
        ends = [i for i, ratio in enumerate(ratios) if 0 < ratio < math.inf]
        if not ends or not self.restart_times:
            return grid if tuple(levels) == tuple(grid) else levels
        at = min(ends, key=lambda i: abs(math.log(ratios[i] / self.restart_low)))
        high, low = min(self.restart_high, ratios[0]), ratios[at]
        if low >= high:
            return grid if tuple(levels) == tuple(grid) else levels
        if self.restart_steps is None:
            between = {level for level in levels[:at] if levels[at] < level < path.from_ratio(high)}
            down = sorted(between, reverse=True)  # levels come again where the solver restarts too
        else:
            first, last = high ** (1.0 / RHO), low ** (1.0 / RHO)
            parts = [i / self.restart_steps for i in range(1, self.restart_steps)]
            down = [path.from_ratio((first + part * (last - first)) ** RHO) for part in parts]
        again = [path.from_ratio(high), *down, levels[at]]
        return [*levels[: at + 1], *again * self.restart_times, *levels[at + 1 :]]

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with the solver, or up with noise."""
        if sigma_next <= sigma:
            return self.solver.step(ctx, x, sigma, sigma_next)
        return ctx.renoise(x, sigma, sigma_next, ctx.noise(sigma, sigma_next, "restart"), self.s_noise)


@frozen
class A1111Restart(Wrapped):
    """Restart by the number of steps, as A1111 does it: of the solver's order in distribution.

    Xu et al. 2023, arXiv:2306.14878. Below 20 steps it is the solver alone, from 20 on it restarts once with
    9 steps, from 36 on twice, each with a quarter of the number of steps.

    Attributes:
        solver: The solver, a sampler or its name.
        restart_low: Level, as noise over signal, at which the run restarts.
        restart_high: Level that it goes up to.
        s_noise: Factor of the noise.
    """

    solver: StepSampler = field(default="heun", converter=get_sampler, validator=check_one_step)
    restart_low: float = field(default=0.1, converter=float, validator=positive, metadata={"unit": "sigma"})
    restart_high: float = field(
        default=2.0, converter=float, validator=[positive, _above_low], metadata={"unit": "sigma"}
    )
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    stochastic = True
    rises = True

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What few steps break."""
        return {"noise_if_and_only_if_declared": "below 20 steps it does not restart, as in A1111"}

    def _restart(self, steps: int) -> Restart:
        """What it does on a grid of so many steps."""
        times = 0 if steps < 20 else 1 if steps < 36 else 2
        each = steps // 4 if times == 2 else 9
        return Restart(self.solver, self.restart_low, self.restart_high, each, times, self.s_noise)

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The levels with those of the restarts."""
        return self._restart(len(grid) - 1).prepare(grid, path, process)

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with the solver, or up with noise."""
        return self._restart(20).step(ctx, x, sigma, sigma_next)
