"""The schedule of the continuous variance-preserving process."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import field, frozen

from kdiff_core.parameters import below_one, positive

from .range import RangeSchedule


@frozen
class VP(RangeSchedule):
    """Levels uniform in the time of the VP process, then 0.

    ``sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)`` for ``t`` from 1 down to `eps_s`.
    Song et al. 2020, arXiv:2011.13456, eq. 11 and 33; as a noise level: Karras et al. 2022,
    arXiv:2206.00364, table 1. Without a given range or a process it has its own, ``sigma(eps_s)`` to
    ``sigma(1)`` (0.0105 to 152 by default); another range is spent uniformly in ``t`` between the times
    of its ends.

    Args:
        beta_d: Growth of the noise rate over ``t`` in [0, 1], above 0.
        beta_min: Noise rate at ``t = 0``, above 0.
        eps_s: Time of the lowest level, between 0 and 1.
    """

    beta_d: float = field(default=19.9, converter=float, validator=positive)
    beta_min: float = field(default=0.1, converter=float, validator=positive)
    eps_s: float = field(default=1e-3, converter=float, validator=below_one)

    def sigma(self, t: float) -> float:
        """Return the level at time `t`, at least 0."""
        return math.sqrt(math.expm1(self.beta_d * t * t / 2 + self.beta_min * t))

    def t(self, sigma: float) -> float:
        """Return the time of a level, the inverse of `sigma`."""
        grown = math.log1p(sigma * sigma)
        # The root of the quadratic, in the form that does not cancel at low levels.
        return 2 * grown / (self.beta_min + math.sqrt(self.beta_min**2 + 2 * self.beta_d * grown))

    def default_range(self) -> tuple[float, float]:
        """Return the levels at `eps_s` and at 1."""
        return self.sigma(self.eps_s), self.sigma(1.0)

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        start, end = self.t(sigma_max), self.t(sigma_min)
        return lambda u: self.sigma(start + u * (end - start))
