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
DIGITS = 40


class Teacher(StepContext):
    """A context in which all earlier states are the exact solution, so that one step's own error shows.

    The data are one normal variable; its probability flow has a closed form on every path.

    Args:
        sampler: The sampler.
        path: The noise path.
        grid: Levels, as high-precision numbers.
        variance: Variance of the data.
    """

    def __init__(self, sampler: Any, path: Path, grid: Sequence[Any], variance: float) -> None:
        super().__init__(grid, path, None, sampler.memory)
        self.sampler = sampler
        self.way = path  # a wrapper may have the step see another path; the data stay on this one
        self.variance = mpmath.mpf(variance)
        self.mean = mpmath.mpf(MEAN)

    def denoise(self, x: Any, sigma: Any) -> Any:
        """The posterior mean."""
        a, v = self.way.alpha(sigma), self.variance
        output = self.mean + a * v / (a * a * v + sigma * sigma) * (x - a * self.mean)
        self._evaluated(sigma, output)
        return output

    def predict(self, x: Any, sigma: Any) -> Prediction:
        """The posterior mean, three times."""
        return Prediction(*[self.denoise(x, sigma)] * 3)

    def noise(self, sigma_from: Any, sigma_to: Any, stream: str = "step") -> Any:
        """Refuse: the step is said to be deterministic."""
        raise LawBroken("the step asks for noise, but does not declare stochastic")

    def exact(self, x: Any, sigma: Any, sigma_next: Any) -> Any:
        """The exact solution through a state."""
        a, b, v = self.way.alpha(sigma), self.way.alpha(sigma_next), self.variance
        scale = mpmath.sqrt((b * b * v + sigma_next**2) / (a * a * v + sigma**2))
        return b * self.mean + (x - a * self.mean) * scale

    def last_step_error(self) -> Any:
        """Error of the last step of the grid; the solution passes through 1 at its first level."""
        x = after = mpmath.mpf(1)
        for index, (sigma, sigma_next) in enumerate(pairwise(self.grid)):
            self._begin(index, x)
            after = self.sampler.step(self, x, sigma, sigma_next)
            self._finish(lambda value: value)
            x = self.exact(x, sigma, sigma_next)
        return after - x


def one_step_error(sampler: Any, path: str, h: float, ratios: Sequence[float], lam: float) -> float:
    """Error of a step of size `h` in log-SNR from `lam` on, after exact steps of sizes ``ratio * h``.

    Args:
        sampler: The sampler, deterministic.
        path: ``"ve"`` or ``"flow"``.
        h: Size of the step.
        ratios: Sizes of the steps before it, the newest first, as multiples of `h`; its memory many.
        lam: Log-SNR at its start.

    Returns:
        The norm of the errors over the `VARIANCES`.
    """
    way = as_path(path)
    with mpmath.workdps(DIGITS):
        ends = [lam + mpmath.mpf(h), lam]
        for ratio in ratios[: sampler.memory]:
            ends.append(ends[-1] - mpmath.mpf(h) * ratio)
        grid = [way.sigma(mpmath.mpf(end)) for end in reversed(ends)]
        errors = [Teacher(sampler, way, grid, variance).last_step_error() for variance in VARIANCES]
        return float(mpmath.norm(errors))
