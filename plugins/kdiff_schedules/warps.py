"""Schedules that are a warp of the range: ``sigma = sigma_min + (sigma_max - sigma_min) w(1 - u)``, then 0.

Each ``w`` rises from 0 to 1. Hosts offer such curves under these names without a paper, with ends of their
own; the formulas here are kdiff's, and span the range asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, positive

from .range import RangeSchedule


@frozen
class Warp(RangeSchedule):
    """A curve over a range of levels. A family writes `curve`, which rises."""

    def curve(self, y: float) -> float:
        """Return the height at `y` between 0 (lowest level) and 1 (highest), in any unit."""
        raise NotImplementedError

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        bottom, top = self.curve(0.0), self.curve(1.0)
        scale = (sigma_max - sigma_min) / (top - bottom)
        return lambda u: sigma_min + (self.curve(1 - u) - bottom) * scale


@frozen
class TangentRamp(Warp):
    """An arctangent's ramp: small steps at both ends, the largest at `pivot`.

    Args:
        pivot: Share of the steps after which the levels fall fastest, between 0 and 1.
        slope: How steep the ramp is there, above 0.
    """

    pivot: float = field(default=0.6, converter=float, validator=below_one)
    slope: float = field(default=8.0, converter=float, validator=positive)

    def curve(self, y: float) -> float:
        """Return the height."""
        return math.atan(self.slope * (y - (1 - self.pivot)))


@frozen
class BongTangent(TangentRamp):
    """Two arctangents' ramps that meet at half of the range at `pivot`, as RES4LYF's "bong_tangent" does.

    The host's levels go from 1 to 0 whatever the model; these span the range. The default slope is that of
    the host's 0.2 a step in 40 steps.

    Args:
        pivot: Share of the steps where the ramps meet, between 0 and 1.
        slope: How steep both ramps are there, above 0.
    """

    def curve(self, y: float) -> float:
        """Return the height."""
        middle = 1 - self.pivot
        end = self.pivot if y > middle else middle
        return math.atan(self.slope * (y - middle)) / math.atan(self.slope * end)


@frozen
class Probit(Warp):
    """Quantiles of a logit-normal distribution: ``w(y) = sigmoid(scale ppf(y))``, within its tails.

    The times that flow models are trained at: Esser et al. 2024, arXiv:2403.03206.

    Args:
        scale: Width of the normal distribution, above 0.
        tail: Probability that is left out at each end, below 0.5.
    """

    scale: float = field(default=3.0, converter=float, validator=positive)
    tail: float = field(default=0.01, converter=float, validator=below_one)

    def __attrs_post_init__(self) -> None:
        if self.tail >= 0.5:
            raise ParameterError(f"Probit: tail={self.tail} must be below 0.5")

    def curve(self, y: float) -> float:
        """Return the height."""
        return 1 / (1 + math.exp(-self.scale * NormalDist().inv_cdf(self.tail + (1 - 2 * self.tail) * y)))


@frozen
class Hyper(Warp):
    """A hyperbolic sine: ``w(y) = sinh(scale y) / sinh(scale)``, with more steps at low levels.

    Args:
        scale: How much, above 0; towards 0 it is a line.
    """

    scale: float = field(default=2.0, converter=float, validator=positive)

    def curve(self, y: float) -> float:
        """Return the height."""
        return math.sinh(self.scale * y)


@frozen
class Sinner(Warp):
    """A line with waves: ``w(y) = y + sin(2 pi count y) / (2 pi |count| scale)``.

    Args:
        count: Number of waves, not 0; below 0 they begin the other way.
        scale: By what their slope is divided, above 1.
    """

    count: int = -2
    scale: float = field(default=2.0, converter=float)

    def __attrs_post_init__(self) -> None:
        if self.scale <= 1 or not math.isfinite(self.scale) or self.count == 0:
            raise ParameterError(
                f"Sinner: count={self.count} must not be 0 and scale={self.scale} must be above 1, "
                "or the levels would rise"
            )

    def curve(self, y: float) -> float:
        """Return the height."""
        turn = 2 * math.pi * self.count
        return y + math.sin(turn * y) / (abs(turn) * self.scale)
