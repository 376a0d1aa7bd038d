"""Churn: noise added before each step, for any one-step solver."""

from __future__ import annotations

import math
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler, get_sampler
from kdiff_core.parameters import level, not_negative
from kdiff_core.sampler import check_one_step

from .wrapped import Wrapped


@frozen
class Churn(Wrapped):
    """Raise the state's noise level a little before each step of a solver.

    Karras et al. 2022, arXiv:2206.00364, Algorithm 2, on every path: the factor ``1 + gamma`` multiplies
    ``sigma / alpha``, the noise level in VE coordinates. The noise is exact, so the distribution has the
    solver's order.

    Attributes:
        solver: The solver, a sampler or its name.
        s_churn: Amount of noise over the whole run; gamma is ``s_churn / steps``, at most ``sqrt(2) - 1``.
        s_tmin: Lowest level with churn.
        s_tmax: Highest level with churn.
        s_noise: Factor of the noise.
    """

    solver: StepSampler = field(default="heun", converter=get_sampler, validator=check_one_step)
    s_churn: float = field(default=0.0, converter=float, validator=not_negative)
    s_tmin: float = field(default=0.0, converter=float, validator=not_negative, metadata={"unit": "sigma"})
    s_tmax: float = field(default=math.inf, converter=float, validator=level, metadata={"unit": "sigma"})
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    reaches_zero = True

    @property
    def path_invariant(self) -> bool:
        """The solver's: churn is added in VE coordinates. A range of levels is another on each path."""
        return self.solver.path_invariant and self.s_tmin == 0 and self.s_tmax == math.inf

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.s_churn > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Up with noise, down with the solver."""
        ratio = ctx.path.ratio(sigma)
        if self.s_churn and self.s_tmin <= sigma <= self.s_tmax and ratio < math.inf:
            gamma = min(self.s_churn / (len(ctx.grid) - 1), math.sqrt(2.0) - 1.0)
            hat = ctx.path.from_ratio((1.0 + gamma) * ratio)
            x = ctx.renoise(x, sigma, hat, ctx.noise(sigma, hat, "churn"), self.s_noise)
            sigma = hat
        return ctx.advance(self.solver, x, sigma, sigma_next)
