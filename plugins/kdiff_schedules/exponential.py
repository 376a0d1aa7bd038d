"""Schedules that are uniform in the logarithm of the level, or in a power of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import field, frozen

from kdiff_core.parameters import positive

from .range import RangeSchedule


@frozen
class Exponential(RangeSchedule):
    """Levels uniform in ``log sigma``, a constant ratio from each to the next, then 0.

    The log-SNR spacing of DPM-Solver: Lu et al. 2022, arXiv:2206.00927, section 4.1 and appendix C.
    """

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        return PolyExponential(rho=1.0).ramp(sigma_min, sigma_max)


@frozen
class PolyExponential(RangeSchedule):
    """Levels whose logarithm falls as a power, then 0. From k-diffusion (Crowson 2022).

    ``log sigma(u) = log sigma_min + (1 - u)^rho (log sigma_max - log sigma_min)``.

    Args:
        rho: Above 0. 1 is `Exponential`; the larger, the more steps at low noise. From about 5 on, many
            steps leave levels that float64 cannot tell apart, which the grid refuses.
    """

    rho: float = field(default=1.0, converter=float, validator=positive)

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        low, high = math.log(sigma_min), math.log(sigma_max)
        return lambda u: math.exp(low + (1 - u) ** self.rho * (high - low))
