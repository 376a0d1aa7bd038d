"""Heun's method."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from kdiff_core import StepContext, StepSampler


@frozen
class Heun(StepSampler):
    """Heun's method on ``dx/dsigma = (x - D) / sigma``; order 2, two evaluations a step.

    Karras et al. 2022, arXiv:2206.00364, Algorithm 1. With churn, Algorithm 2: ``get_sampler("heun",
    s_churn=40)``.
    """

    order = 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The trapezoidal rule: the mean of x and of Euler's end, moved on by the slope there."""
        end = ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
        slope = (end - ctx.denoise(end, sigma_next)) / sigma_next
        return (x + end + slope * (sigma_next - sigma)) * 0.5
