"""DDIM and DDPM."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import sqrt
from kdiff_core.parameters import not_negative, one_of, positive


@frozen
class DDIM(StepSampler):
    """DDIM: an exponential Euler step, with a share `eta` of the exact posterior's noise; order 1.

    Song et al. 2020, arXiv:2010.02502, eq. 12 and 16. The noise is split off in VE coordinates, so the
    sampler is the same on every path. ``eta = 1`` is DDPM (Ho et al. 2020, arXiv:2006.11239, eq. 7), whose
    section 3.2 has two variances of the noise: the smaller is exact if the data are one point, the larger if
    they are normal of standard deviation `sigma_data`. (Their logarithms, as some models have them, are the
    same variances; learned ones need another output of the model.)

    Attributes:
        eta: 0 is deterministic (Euler), 1 is DDPM.
        s_noise: Factor of the noise.
        variance: ``"fixed_small"`` or ``"fixed_large"``; with `eta` below 1 that share of what it adds.
        sigma_data: Standard deviation of the data, for the larger variance.
    """

    eta: float = field(default=0.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    variance: str = field(default="fixed_small", validator=one_of("fixed_small", "fixed_large"))
    sigma_data: float = field(default=1.0, converter=float, validator=positive, metadata={"unit": "sigma"})

    order = 1
    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with one evaluation, up with noise."""
        x = ctx.ancestral(x, ctx.denoise(x, sigma), sigma, sigma_next, self.eta, self.s_noise)
        if self.variance == "fixed_small" or not self.eta:
            return x
        # In VE coordinates; the variance of normal data, given the state, widens the posterior's.
        snr, square = (ctx.alpha(sigma) / sigma) ** 2, ctx.path.ratio(sigma_next) ** 2
        fresh, data = 1.0 - square * snr, self.sigma_data**2
        small = square * min(self.eta**2 * fresh, 1.0)
        large = small + (self.eta * fresh) ** 2 * data / (1.0 + data * snr)
        more = self.s_noise * ctx.alpha(sigma_next) * (sqrt(large) - sqrt(small))
        return x + ctx.noise(sigma, sigma_next) * more
