"""Euler's method."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from kdiff_core import StepContext, StepSampler


@frozen
class Euler(StepSampler):
    """Euler's method on ``dx/dsigma = (x - D) / sigma``; order 1.

    The same as DDIM with ``eta = 0`` on every path. Karras et al. 2022, arXiv:2206.00364, Algorithm 1
    without its correction; Song et al. 2020, arXiv:2010.02502, eq. 12.
    """

    order = 1
    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """One evaluation."""
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
