"""Discrete noise processes: the tables of betas that eps, v and x0 models were trained on.

Names differ between projects. kdiff follows diffusers: "linear" is linear in beta, "scaled_linear" is
linear in the root of beta (Stable Diffusion). ComfyUI and CompVis call the former "sqrt_linear" and the
latter "linear"; those names are not aliases here, since "linear" would then mean two things.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, positive, whole
from kdiff_core.protocols import PathName


class _Table(NamedTuple):
    levels: tuple[float, ...]
    logs: tuple[float, ...]


@frozen
class BetaProcess:
    """A discrete variance-preserving process, seen as levels on the VE path.

    Entry ``i`` of `steps` has the level ``sqrt((1 - abar_i) / abar_i)`` with ``abar_i`` the product of
    ``1 - beta`` up to it (Ho et al. 2020, arXiv:2006.11239, eq. 4) and the time ``i / (steps - 1)``.
    Between entries ``log sigma`` is linear in time; beyond the ends it goes on with the slope of the
    first or last interval, so that a schedule can be asked for a range outside the table.

    A family writes `betas`.
    """

    path: ClassVar[PathName] = "ve"
    steps: int = field(default=1000, validator=whole(2), kw_only=True)

    def betas(self) -> list[float]:
        """Return the noise rates, `steps` of them, each between 0 and 1."""
        raise NotImplementedError

    @property
    def levels(self) -> tuple[float, ...]:
        """The table: `steps` rising noise levels."""
        return _table(self).levels

    @property
    def sigma_min(self) -> float:
        """The first, lowest level of the table."""
        return self.levels[0]

    @property
    def sigma_max(self) -> float:
        """The last, highest level of the table."""
        return self.levels[-1]

    def sigma(self, t: float) -> float:
        """Return the noise level at time `t`, usually in ``[0, 1]``; entries are met exactly.

        Raises:
            ParameterError: `t` is so far outside ``[0, 1]`` that the level is beyond float64.
        """
        levels, logs = _table(self)
        place = t * (self.steps - 1)
        i = min(max(math.floor(place), 0), self.steps - 2)
        within = place - i
        if within in (0, 1):
            return levels[i + int(within)]
        try:
            return math.exp(logs[i] + within * (logs[i + 1] - logs[i]))
        except OverflowError as error:
            raise ParameterError(f"{self}: t={t} is far outside [0, 1], where the table is") from error

    def t(self, sigma: float) -> float:
        """Return the time at which the level is `sigma` (above 0), the inverse of `sigma`."""
        levels, logs = _table(self)
        i = min(max(bisect_right(levels, sigma) - 1, 0), self.steps - 2)
        if sigma in (levels[i], levels[i + 1]):
            return (i + (sigma == levels[i + 1])) / (self.steps - 1)
        within = (math.log(sigma) - logs[i]) / (logs[i + 1] - logs[i])
        return (i + within) / (self.steps - 1)


@lru_cache(maxsize=32)
def _table(process: BetaProcess) -> _Table:
    """Levels of a process and their logarithms.

    Raises:
        ParameterError: The betas leave so little signal that levels overflow or stop rising.
    """
    try:
        # Through log(abar), so that the low levels do not lose digits in 1 - abar.
        decay = accumulate(-math.log1p(-beta) for beta in process.betas())
        levels = tuple(math.sqrt(math.expm1(d)) for d in decay)
    except OverflowError:
        levels = ()
    if not levels or any(b <= a for a, b in pairwise(levels)):
        raise ParameterError(f"{process}: no signal is left at the end of the table; use lower betas")
    return _Table(levels, tuple(math.log(v) for v in levels))


def _line(first: float, last: float, n: int) -> list[float]:
    return [first + (last - first) * i / (n - 1) for i in range(n)]


@frozen
class LinearBetas(BetaProcess):
    """Betas on a line. Ho et al. 2020, arXiv:2006.11239, section 4. ComfyUI's "sqrt_linear".

    Args:
        beta_start: First beta, between 0 and 1.
        beta_end: Last beta, between 0 and 1.
        steps: Length of the table, at least 2.
    """

    beta_start: float = field(default=1e-4, converter=float, validator=below_one)
    beta_end: float = field(default=2e-2, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return _line(self.beta_start, self.beta_end, self.steps)


@frozen
class ScaledLinearBetas(BetaProcess):
    """Roots of betas on a line: Stable Diffusion's table. ComfyUI's and CompVis's "linear".

    Rombach et al. 2021, arXiv:2112.10752 (as released; levels 0.0292 to 14.6).

    Args:
        beta_start: First beta, between 0 and 1.
        beta_end: Last beta, between 0 and 1.
        steps: Length of the table, at least 2.
    """

    beta_start: float = field(default=0.00085, converter=float, validator=below_one)
    beta_end: float = field(default=0.012, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return [b * b for b in _line(math.sqrt(self.beta_start), math.sqrt(self.beta_end), self.steps)]


@frozen
class CosineBetas(BetaProcess):
    """``abar(u) = cos^2((u + offset) / (1 + offset) pi / 2)``, ``beta_i = 1 - abar((i+1)/n) / abar(i/n)``.

    Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.

    Args:
        offset: Keeps the first betas from vanishing, above 0.
        beta_max: Betas are cut here, between 0 and 1.
        steps: Length of the table, at least 2.
    """

    offset: float = field(default=0.008, converter=float, validator=positive)
    beta_max: float = field(default=0.999, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""

        def abar(u: float) -> float:
            return math.cos((u + self.offset) / (1 + self.offset) * math.pi / 2) ** 2

        n = self.steps
        return [min(1 - abar((i + 1) / n) / abar(i / n), self.beta_max) for i in range(n)]
