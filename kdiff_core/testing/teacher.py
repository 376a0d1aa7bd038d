"""One step of a sampler with exact history, in 40 digits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import mpmath

from ..context import Prediction, StepContext
from ..path import Path, as_path
from .catalogue import LawBroken

# Several variances: the error on a single one is one number, which crosses zero and then fakes an order.
VARIANCES = (0.01, 0.2, 1.0, 4.0)
MEAN = "0.3"
# The wave that is added to the solution.
HEIGHT, WAVES = mpmath.mpf("0.4"), mpmath.mpf(2)
DIGITS = 40


class Teacher(StepContext):
    """A context in which all earlier states are the exact solution, so that one step's own error shows.

    The data are one normal variable, whose probability flow has a closed form on every path. On it a few
    methods are better than their order. So a known wave ``y`` is added to the solution ``X``, and to the
    denoiser what makes ``X + y`` the solution: ``D(x) = D_normal(x - y) + y - sigma y' + (x - X - y)^2 / 5``,
    which is not linear in x.

    Args:
        sampler: The sampler.
        path: The noise path.
        grid: Levels, as high-precision numbers.
        variance: Variance of the data.
        plain: Whether to leave the wave and the square out, so that the data are normal.
    """

    def __init__(
        self, sampler: Any, path: Path, grid: Sequence[Any], variance: float, plain: bool = False
    ) -> None:
        super().__init__(grid, path, None, sampler.memory)
        self.sampler = sampler
        self.way = path  # a wrapper may have the step see another path; the data stay on this one
        self.variance = mpmath.mpf(variance)
        self.mean = mpmath.mpf(MEAN)
        self.height = HEIGHT * (not plain)
        # Another phase for each variance: the waves bend in none of them at once.
        self.phase = mpmath.pi / 4 * VARIANCES.index(variance) if variance in VARIANCES else mpmath.mpf(0)

    def denoise(self, x: Any, sigma: Any) -> Any:
        """The denoiser's output."""
        a, v, phase = self.way.alpha(sigma), self.variance, self.phase + WAVES * mpmath.log(sigma)
        wave, slope = (
            self.height * mpmath.sin(phase),
            self.height * WAVES * mpmath.cos(phase),
        )  # y and sigma y'
        normal = self.mean + a * v / (a * a * v + sigma * sigma) * (x - wave - a * self.mean)
        output = normal + wave - slope + (x - self.exact(sigma)) ** 2 * self.height / 2
        self._evaluated(sigma, output)
        return output

    def predict(self, x: Any, sigma: Any) -> Prediction:
        """The same output, three times."""
        return Prediction(*[self.denoise(x, sigma)] * 3)

    def noise(self, sigma_from: Any, sigma_to: Any, stream: str = "step") -> Any:
        """Refuse: the step is said to be deterministic."""
        raise LawBroken("the step asks for noise, but does not declare stochastic")

    def exact(self, sigma: Any) -> Any:
        """The exact solution at a level; the one of normal data passes through 1 at the first level."""
        first, v = self.grid[0], self.variance
        a, b = self.way.alpha(first), self.way.alpha(sigma)
        scale = mpmath.sqrt((b * b * v + sigma**2) / (a * a * v + first**2))
        return (
            b * self.mean
            + (1 - a * self.mean) * scale
            + self.height * mpmath.sin(self.phase + WAVES * mpmath.log(sigma))
        )

    def last_step_error(self) -> Any:
        """Error of the last step of the grid."""
        after = mpmath.mpf(0)
        for index, (sigma, sigma_next) in enumerate(pairwise(self.grid)):
            x = self.exact(sigma)
            self._begin(index, x)
            after = self.sampler.step(self, x, sigma, sigma_next)
            self._kept["x"] = (
                x  # a corrector's state is not exact on the first steps, which have less history
            )
            self._finish(lambda value: value)
        return after - self.exact(self.grid[-1])


def one_step_error(
    sampler: Any, path: str, h: float, ratios: Sequence[float], lam: float, plain: bool = False
) -> float:
    """Error of a step of size `h` in log-SNR from `lam` on, after exact steps of sizes ``ratio * h``.

    Args:
        sampler: The sampler, deterministic.
        path: ``"ve"`` or ``"flow"``.
        h: Size of the step.
        ratios: Sizes of the steps before it, the newest first, as multiples of `h`; its memory many.
        lam: Log-SNR at its start.
        plain: Whether the data are normal and nothing else; see `Teacher`.

    Returns:
        The norm of the errors over the `VARIANCES`.
    """
    way = as_path(path)
    with mpmath.workdps(DIGITS):
        ends = [lam + mpmath.mpf(h), lam]
        for ratio in ratios[: sampler.memory]:
            ends.append(ends[-1] - mpmath.mpf(h) * ratio)
        grid = [way.sigma(mpmath.mpf(end)) for end in reversed(ends)]
        errors = [Teacher(sampler, way, grid, variance, plain).last_step_error() for variance in VARIANCES]
        return float(mpmath.norm(errors))
