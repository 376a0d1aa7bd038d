"""DDIM and DDPM."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.parameters import not_negative


@frozen
class DDIM(StepSampler):
    """DDIM: an exponential Euler step, with a share `eta` of the exact posterior's noise; order 1.

    Song et al. 2020, arXiv:2010.02502, eq. 12 and 16. The noise is split off in VE coordinates, so the
    sampler is the same on every path. ``eta = 1`` is DDPM with its smaller variance (Ho et al. 2020,
    arXiv:2006.11239, eq. 7).

    Attributes:
        eta: 0 is deterministic (Euler), 1 is DDPM.
        s_noise: Factor of the noise.
    """

    eta: float = field(default=0.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order = 1
    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with one evaluation, up with noise."""
        return ctx.ancestral(x, ctx.denoise(x, sigma), sigma, sigma_next, self.eta, self.s_noise)
