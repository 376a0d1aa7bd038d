"""Schedules that are a formula between two levels: KL-optimal, Laplace, log-SNR, uniform in the level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from kdiff_core.parameters import one_of, positive
from kdiff_core.path import as_path

from .range import RangeSchedule

_TO_ZERO = dict.fromkeys(
    ("spans_the_range_given", "takes_its_range_from_a_process"),
    "its formula goes down to 0, so that its last levels may be below sigma_min",
)

if TYPE_CHECKING:
    from kdiff_core.protocols import PathName, Process


@frozen
class LevelUniform(RangeSchedule):
    """Levels evenly spaced, then 0; without a range or a process from 1 to 0.001.

    What flow models are sampled with before a shift: Esser et al. 2024, arXiv:2403.03206. With a shifted
    process it is ``uniform`` that is the shifted line.
    """

    def default_range(self) -> tuple[float, float]:
        """Return the range of a flow model of 1000 times."""
        return 1e-3, 1.0

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        return lambda u: (1 - u) * sigma_max + u * sigma_min


@frozen
class KLOptimal(RangeSchedule):
    """``sigma(u) = tan((1 - u) atan sigma_max + u atan sigma_min)``, then 0.

    Sabour et al. 2024, arXiv:2404.14507: optimal for Gaussian data of variance 1. This is
    ComfyUI's reading; A1111 takes ``n + 1`` levels and ends at `sigma_min` (`KLOptimalToMin`).
    """

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        low, high = math.atan(sigma_min), math.atan(sigma_max)
        return lambda u: math.tan((1 - u) * high + u * low)


@frozen
class Laplace(RangeSchedule):
    """Log levels at evenly spaced quantiles of a Laplace distribution within the range, then 0.

    Hang & Gu 2024, arXiv:2407.03297. Most steps are about ``sigma = e^mu``. ComfyUI cuts the whole
    distribution at the ends of the range instead, so that levels repeat: ``comfyui:laplace``.

    Args:
        mu: Middle of the distribution of ``log sigma``.
        beta: Its width, above 0.
    """

    mu: float = field(default=0.0, converter=float)
    beta: float = field(default=0.5, converter=float, validator=positive)

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        low, high = self._tails(sigma_min), self._tails(sigma_max)

        def at(u: float) -> float:
            below, above = ((1 - u) * h + u * m for h, m in zip(high, low, strict=True))
            # From the smaller tail, which has its digits.
            away = math.log(2 * below) if below < above else -math.log(2 * above)
            return math.exp(self.mu + self.beta * away)

        return at

    def _tails(self, sigma: float) -> tuple[float, float]:
        """Return the probabilities below and above a level."""
        away = (math.log(sigma) - self.mu) / self.beta
        tail = math.exp(-abs(away)) / 2
        return (tail, 1 - tail) if away < 0 else (1 - tail, tail)


@frozen
class LogSNR(RangeSchedule):
    """Levels uniform in ``lambda = log(alpha / sigma)``, then 0.

    Lu et al. 2022, arXiv:2206.00927, section 4.1. On VE it is `Exponential`. On flow, where lambda is
    minus infinity at 1, a range that begins there is spent from 0.9999 on, behind the first level.

    Args:
        path: "ve" or "flow"; None takes the process's, and VE without a process.
    """

    path: PathName | None = field(default=None, validator=one_of("ve", "flow", None))

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        if n == 1:
            return [high, 0.0]
        path = as_path(self.path or (process.path if process is not None else "ve"))
        first, last = float(path.inner_lambda(high)), float(path.lambda_(low))
        between = (path.sigma(first + i / (n - 1) * (last - first)) for i in range(1, n - 1))
        return [high, *map(float, between), low, 0.0]


@frozen
class TrigFlow(RangeSchedule):
    """Angles of TrigFlow evenly spaced from that of `sigma_max` down to 0.

    ``sigma_i = sigma_data tan((1 - i/n) atan(sigma_max / sigma_data))``. Lu & Song 2024, arXiv:2410.11081.
    Its lowest level above 0 is an angle's n-th part, not `sigma_min`.

    Args:
        sigma_data: The level at an angle of 45 degrees, above 0.
    """

    meets_min: ClassVar[bool] = False
    known_failures: ClassVar[dict[str, str]] = _TO_ZERO
    sigma_data: float = field(default=0.5, converter=float, validator=positive)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        angle = math.atan(high / self.sigma_data)
        inner = [self.sigma_data * math.tan(angle * (1 - i / n)) for i in range(1, n)]
        return [high, *inner, 0.0]


@frozen
class LinearQuadratic(RangeSchedule):
    """From `sigma_max` evenly down by a small share of it, then by a parabola to 0.

    With ``y = 1 - sigma / sigma_max``: a line from 0 to `threshold` in the first ``m`` steps, then the
    parabola that goes on with its slope and ends in 1. Polyak et al. 2024, arXiv:2410.13720 (Movie Gen).
    The range's lower end is not used.

    Args:
        threshold: ``y`` where the line ends, between 0 and 1.
        linear_steps: ``m``; None is half of the steps, rounded down.
    """

    meets_min: ClassVar[bool] = False
    known_failures: ClassVar[dict[str, str]] = _TO_ZERO
    threshold: float = field(default=0.025, converter=float, validator=positive)
    linear_steps: int | None = None

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        if n == 1:
            return [high, 0.0]
        m = min(max(n // 2 if self.linear_steps is None else self.linear_steps, 1), n - 1)
        slope = self.threshold / m
        bend = (1 - self.threshold - slope * (n - m)) / (n - m) ** 2
        up = [i * slope for i in range(m)]
        up += [self.threshold + slope * (i - m) + bend * (i - m) ** 2 for i in range(m, n)]
        return [*((1 - y) * high for y in up), 0.0]


@frozen
class LevelBeta(RangeSchedule):
    """Levels at evenly spaced quantiles of a Beta distribution over the range, then 0.

    A1111's and diffusers' "beta", where ComfyUI's and Lee et al.'s (`Beta`) is over times: with the same
    parameters this one spends nearly all steps on the highest levels.

    Args:
        alpha: First parameter of the distribution, above 0.
        beta: Second, above 0.
    """

    alpha: float = field(default=0.6, converter=float, validator=positive)
    beta: float = field(default=0.6, converter=float, validator=positive)

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        from scipy.special import betaincinv

        span = sigma_max - sigma_min
        return lambda u: sigma_min + float(betaincinv(self.alpha, self.beta, 1 - u)) * span
