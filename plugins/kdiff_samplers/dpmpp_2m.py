"""DPM-Solver++ of order 2, multistep."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import phi
from kdiff_core.parameters import one_of


@frozen
class DPMpp2M(StepSampler):
    """DPM-Solver++(2M): order 2 in log-SNR, one evaluation a step.

    Lu et al. 2022, arXiv:2211.01095, Algorithm 2. The first step, and one that would reach back to
    sigma = 1 on a flow path, is of order 1.

    Attributes:
        solver_type: Weight of the history: ``"midpoint"``, D in the middle of the step, or ``"heun"``, exact
            if D is linear in log-SNR.
    """

    solver_type: str = field(default="midpoint", validator=one_of("midpoint", "heun"))

    order, memory = 2, 1
    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step with the data estimate extrapolated into the step."""
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            before = ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma)
            place = 0.5 if self.solver_type == "midpoint" else phi(2, -h) / phi(1, -h)
            denoised = denoised + (denoised - ctx.past[0].denoised) * (place * h / before)
        return ctx.to(x, denoised, sigma, sigma_next)
