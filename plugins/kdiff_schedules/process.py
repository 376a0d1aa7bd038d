"""Discrete noise processes: tables of levels that eps, v and x0 models were trained on.

The families of betas stand in `kdiff_schedules.betas`, continuous processes in
`kdiff_schedules.continuous` and `kdiff_schedules.flow`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, positive, whole
from kdiff_core.protocols import PathName

# The last abar of a table without any signal: diffusers' 2^-24, a level of 4096. ComfyUI takes 4518.8.
ZERO_SNR_ABAR = 2.0**-24


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

    A family writes `betas`; every family takes these:

    Args:
        steps: Length of the table, at least 2.
        snr_shift: Multiplies the variance of each level, as ``abar / (s + (1 - s) abar)`` does. CogVideoX
            has 3: Yang et al. 2024, arXiv:2408.06072. Comes before `zero_snr`.
        zero_snr: Whether the roots of ``abar`` are shifted and scaled so that the last is 0 and the first
            stays: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
        abar_min: With `zero_snr`, the last ``abar``: its level would be infinite. 2^-24 (a level of 4096)
            is diffusers' number, 4.8973451890853435e-08 (4518.8) ComfyUI's.
        prediction: What the model's output is ("epsilon", "v_prediction", "sample"), for who adapts it.
    """

    path: ClassVar[PathName] = "ve"
    steps: int = field(default=1000, validator=whole(2), kw_only=True)
    snr_shift: float = field(default=1.0, converter=float, validator=positive, kw_only=True)
    zero_snr: bool = field(default=False, kw_only=True)
    abar_min: float = field(default=ZERO_SNR_ABAR, converter=float, validator=below_one, kw_only=True)
    prediction: str = field(default="epsilon", kw_only=True)

    def betas(self) -> Sequence[float]:
        """Return the noise rates, `steps` of them, each between 0 and 1."""
        raise NotImplementedError

    def decay(self) -> list[float]:
        """Return ``-log abar`` of each entry, so that low levels do not lose digits in ``1 - abar``."""
        return list(accumulate(-math.log1p(-beta) for beta in self.betas()))

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
            level = math.exp(logs[i] + within * (logs[i + 1] - logs[i]))
        except OverflowError as error:
            raise ParameterError(f"{self}: t={t} is far outside [0, 1], where the table is") from error
        # The entry's own logarithm may lead a bit below it.
        return min(max(level, levels[i]), levels[i + 1]) if 0 < within < 1 else level

    def t(self, sigma: float) -> float:
        """Return the time at which the level is `sigma` (above 0), the inverse of `sigma`."""
        levels, logs = _table(self)
        i = min(max(bisect_right(levels, sigma) - 1, 0), self.steps - 2)
        if sigma in (levels[i], levels[i + 1]):
            return (i + (sigma == levels[i + 1])) / (self.steps - 1)
        within = (math.log(sigma) - logs[i]) / (logs[i + 1] - logs[i])
        return (i + within) / (self.steps - 1)

    def timestep(self, sigma: float, *, quantised: bool = False) -> float:
        """Return the place of a level in the table, 0 to ``steps - 1``, as the model counts its time.

        Args:
            sigma: The level, above 0.
            quantised: Whether it is rounded to the entry that is nearest in log sigma, within the table.
        """
        place = self.t(sigma) * (self.steps - 1)
        return float(min(max(round(place), 0), self.steps - 1)) if quantised else place

    def quantise(self, sigma: float) -> float:
        """Return the level of the entry that is nearest in log sigma."""
        return self.levels[int(self.timestep(sigma, quantised=True))]


@lru_cache(maxsize=32)
def _table(process: BetaProcess) -> _Table:
    """Levels of a process and their logarithms.

    Raises:
        ParameterError: The betas leave so little signal that levels overflow or stop rising.
    """
    try:
        levels = _levels(process)
    except OverflowError:
        levels = []
    if not levels or any(b <= a for a, b in pairwise(levels)):
        raise ParameterError(f"{process}: no signal is left at the end of the table; use lower betas")
    return _Table(tuple(levels), tuple(math.log(v) for v in levels))


def _levels(process: BetaProcess) -> list[float]:
    """Return the levels, shifted and rescaled."""
    scale = math.sqrt(process.snr_shift)
    levels = [scale * math.sqrt(math.expm1(d)) for d in process.decay()]
    if not process.zero_snr:
        return levels
    roots = [1 / math.hypot(1.0, level) for level in levels]  # of abar
    stretch = roots[0] / (roots[0] - roots[-1])
    inner = [(root - roots[-1]) * stretch for root in roots[1:-1]]
    last = math.sqrt((1 - process.abar_min) / process.abar_min)
    return [levels[0], *(math.sqrt((1 - root) * (1 + root)) / root for root in inner), last]
