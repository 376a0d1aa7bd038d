"""DPM-Solver-2 as k-diffusion runs it."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import sqrt


@frozen
class DPM2(StepSampler):
    """Midpoint rule on ``dx/dsigma = (x - D) / sigma``, the middle in log sigma; order 2.

    Two evaluations a step. k-diffusion's form of DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927,
    Algorithm 1, which works in log-SNR: `dpm_solver_2s`).
    """

    order = 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The slope of the middle, at the geometric mean of the levels, carries the whole step."""
        middle = sqrt(sigma * sigma_next)
        half = ctx.to(x, ctx.denoise(x, sigma), sigma, middle)
        slope = (half - ctx.denoise(half, middle)) / middle
        return x + slope * (sigma_next - sigma)
