"""Schedules uniform in the time of a discrete process, named after its betas."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from .betas import CosineBetas, LinearBetas, ScaledLinearBetas
from .process import BetaProcess
from .range import RangeSchedule


@frozen
class TableTime(RangeSchedule):
    """Levels uniform in the time of a table of betas, then 0.

    From `sigma_max` to `sigma_min`, by default the process's ends if one is given, else the table's.
    The table fixes the spacing, whatever the process.

    Args:
        table: The process whose time is spent uniformly.
    """

    table: BetaProcess = field(factory=ScaledLinearBetas)

    def default_range(self) -> tuple[float, float]:
        """Return the table's ends."""
        return self.table.sigma_min, self.table.sigma_max

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``."""
        start, end = self.table.t(sigma_max), self.table.t(sigma_min)
        return lambda u: self.table.sigma(start + u * (end - start))


def linear(beta_start: float = 1e-4, beta_end: float = 2e-2, steps: int = 1000) -> TableTime:
    """Uniform in the time of `LinearBetas` (ComfyUI's and CompVis's "sqrt_linear")."""
    return TableTime(LinearBetas(beta_start, beta_end, steps=steps))


def scaled_linear(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000) -> TableTime:
    """Uniform in the time of `ScaledLinearBetas` (ComfyUI's and CompVis's "linear")."""
    return TableTime(ScaledLinearBetas(beta_start, beta_end, steps=steps))


def cosine(offset: float = 0.008, beta_max: float = 0.999, steps: int = 1000) -> TableTime:
    """Uniform in the time of `CosineBetas`."""
    return TableTime(CosineBetas(offset, beta_max, steps=steps))
