"""Heun++."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import lagrange_integrals
from kdiff_core.parameters import one_of


@frozen
class HeunPP2(StepSampler):
    """Heun++ with up to three evaluations a step; order 1 as published, 2 with other weights.

    A community method without a paper (ComfyUI 2023): the slopes at this level and at the next two, along
    Euler steps, are averaged. The last step but one has two slopes, the last one. As published the weights of
    the later slopes are their levels over 3 (or 2) times the first level of the grid, which tend to no order
    above that of Euler. ``weights="integral"`` integrates the polynomial through the slopes, order 2. (The
    stages being Euler steps from level to level, no weights give order 3.)

    Attributes:
        weights: ``"published"`` or ``"integral"``.
    """

    weights: str = field(default="published", validator=one_of("published", "integral"))

    @property
    def order(self) -> int:
        """Measured."""
        return 1 if self.weights == "published" else 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Slopes along Euler steps over the levels ahead, and their mean."""
        levels = self._ahead(ctx, sigma, sigma_next)
        state, slopes = x, []
        for level, after in zip(levels, [*levels[1:], None], strict=True):
            slopes.append((state - ctx.denoise(state, level)) / level)
            if after is not None:
                state = state + slopes[-1] * (after - level)
        if self.weights == "published":
            shares = [level / (len(levels) * ctx.grid[0]) for level in levels[1:]]
            weights = [(sigma_next - sigma) * share for share in (1.0 - sum(shares), *shares)]
        else:
            weights = lagrange_integrals(levels, sigma, sigma_next)
        for weight, slope in zip(weights, slopes, strict=True):
            x = x + slope * weight
        return x

    def _ahead(self, ctx: StepContext, sigma: float, sigma_next: float) -> list[float]:
        """The levels at which a step takes slopes."""
        last = len(ctx.grid) - 1
        if ctx.index + 1 == last:
            return [sigma, sigma_next] if self.weights == "integral" else [sigma]
        if ctx.index + 2 == last:
            return [sigma, sigma_next]
        return [sigma, sigma_next, ctx.grid[ctx.index + 2]]
