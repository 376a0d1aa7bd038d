"""Ancestral noise, for any one-step solver."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler, get_sampler
from kdiff_core.parameters import not_negative
from kdiff_core.sampler import check_one_step

from .wrapped import Wrapped


@frozen
class Ancestral(Wrapped):
    """Overshoot with a deterministic solver, then add fresh noise: an ancestral step.

    The solver goes below the next level, to the one that leaves room for the fresh noise, and the state
    is raised from there. The noise is exact, so the distribution has the solver's order. With ``eta = 1``
    and Euler this is DDPM (Ho et al. 2020, arXiv:2006.11239) in VE coordinates; ``eta`` between 0 and 1 is
    DDIM's (Song et al. 2020, arXiv:2010.02502, eq. 16). On a flow path the level goes down linearly with
    `eta`, as in the hosts of flow models.

    Attributes:
        solver: The deterministic solver, a sampler or its name.
        eta: Share of fresh noise, 0 (deterministic) to 1.
        s_noise: Factor of the fresh noise.
    """

    solver: StepSampler = field(default="euler", converter=get_sampler, validator=check_one_step)
    eta: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    reaches_zero = False

    @property
    def path_invariant(self) -> bool:
        """The solver's without noise: the level that flow goes down to is not VE's."""
        return not self.eta and self.solver.path_invariant

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with the solver, up with noise."""
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        if down == sigma_next:
            return x
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise)
