"""The schedule of Karras et al. (EDM): levels uniform in their `rho`-th root."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from kdiff_core.parameters import positive

from .range import RangeSchedule


@frozen
class Karras(RangeSchedule):
    """Levels uniform in ``sigma^(1/rho)``. Karras et al. 2022, arXiv:2206.00364, eq. 5.

    ``sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``, then 0.

    Args:
        rho: Above 0. 1 is uniform in sigma; the larger, the more steps at low noise. 7 is the paper's.
    """

    rho: float = field(default=7.0, converter=float, validator=positive)

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        # In units of sigma_max, so that a small rho cannot overflow; as a mean, so that nothing cancels.
        root = (sigma_min / sigma_max) ** (1 / self.rho)
        return lambda u: sigma_max * ((1 - u) + u * root) ** self.rho
