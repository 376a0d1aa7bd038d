"""DPM-Solver++ of order 2, multistep."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from kdiff_core import StepContext, StepSampler


@frozen
class DPMpp2M(StepSampler):
    """DPM-Solver++(2M): order 2 in log-SNR, one evaluation a step.

    Lu et al. 2022, arXiv:2211.01095, Algorithm 2. The first step, and one that would reach back to
    sigma = 1 on a flow path, is of order 1.
    """

    order, memory = 2, 1
    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step with the data estimate extrapolated to the middle of the step."""
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma)) / h
            denoised = denoised + (denoised - ctx.past[0].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)
