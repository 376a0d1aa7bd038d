"""The schedules of Song et al.'s processes: uniform in the time of VP and of VE."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from kdiff_core.parameters import below_one, positive

from .continuous import ContinuousVP
from .exponential import Exponential
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

    def default_range(self) -> tuple[float, float]:
        """Return the levels at `eps_s` and at 1."""
        return self._process().ends()

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        process = self._process()
        start, end = process.time(sigma_max), process.time(sigma_min)
        return lambda u: process.level(start + u * (end - start))

    def _process(self) -> ContinuousVP:
        return ContinuousVP(self.beta_d, self.beta_min, self.eps_s)


@frozen
class VE(Exponential):
    """Variances in a geometric sequence, then 0: `Exponential` with VE's own range, 0.02 to 100.

    ``sigma(u)^2 = sigma_max^2 (sigma_min / sigma_max)^(2u)``. Song et al. 2020, arXiv:2011.13456; as a
    schedule: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def default_range(self) -> tuple[float, float]:
        """Return the table's ends."""
        return 0.02, 100.0
