"""DPM-Solver-fast: single-step DPM-Solver of mixed order, for a given number of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

from kdiff_core import Grid, Path, Process, StepContext, StepSampler
from kdiff_core.numerics import exp, phi
from kdiff_core.parameters import one_of, whole


def orders(evaluations: int) -> list[int]:
    """Orders of the single-step solvers that use up a number of evaluations: 3, 3, ..., then 2 and 1."""
    threes, rest = divmod(evaluations, 3)
    return [3] * threes + [rest] if rest else [3] * (threes - 1) + [2, 1]


@frozen
class DPMFast(StepSampler):
    """DPM-Solver-fast: DPM-Solver-3 over intervals of equal log-SNR, the last of order 2 and 1; order 2.

    Lu et al. 2022, arXiv:2206.00927, Section 3.4 and Appendix D.3; the numbers are k-diffusion's. Of the
    caller's grid it takes the ends and the number of steps: the levels that it visits are those of its
    evaluations, one a step, so that the states inside an interval are stages, of low order. Its last interval
    is of order 1 or 2, which caps a run at order 2; the declared order is that of the last step.

    Attributes:
        evaluations: Number of evaluations above the end. Default: the grid's number of steps.
        end: Where a grid ends in 0: ``"level"``, stop at its last level above 0 (k-diffusion), or
            ``"denoised"``: go on to 0 with one evaluation more.
    """

    evaluations: int | None = field(default=None, validator=optional(whole(1)))
    end: str = field(default="level", validator=one_of("level", "denoised"))

    order, memory = 1, 2
    path_invariant = True

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What stopping above 0 breaks."""
        if self.end == "denoised":
            return {}
        why = "stops at the last level above 0, as k-diffusion's does; end='denoised' goes on to 0"
        return dict.fromkeys(("reaches_zero", "constant_denoiser_is_exact", "shift_equivariance"), why)

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The levels of the stages, between the grid's highest and its lowest above 0."""
        ends_in_zero = grid[-1] == 0
        last = grid[-2] if ends_in_zero else grid[-1]
        if last == grid[0]:
            return grid
        parts = orders(self.evaluations or grid.steps)
        start, width = path.inner_lambda(grid[0]), path.lambda_(last) - path.inner_lambda(grid[0])
        places = [(i + j / order) / len(parts) for i, order in enumerate(parts) for j in range(order)]
        levels = [grid[0], *(path.sigma(start + place * width) for place in places[1:]), last]
        return [*levels, 0.0] if ends_in_zero and self.end == "denoised" else levels

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """One evaluation: from the interval's start to its next stage, or to its end."""
        denoised = ctx.denoise(x, sigma)
        order, stage = self._place(ctx)
        if stage == 0:
            return ctx.to(x, denoised, sigma, sigma_next)
        start = ctx.past[stage - 1]
        origin = ctx.path.inner_lambda(start.sigma)
        h = ctx.lambda_(sigma_next) - origin
        first = ctx.eps(start.x, start.denoised, start.sigma)
        slope = (ctx.eps(x, denoised, sigma) - first) / (ctx.lambda_(sigma) - origin)
        # The paper weighs the slope by h phi_1(h) / 2 in DPM-Solver-2, by h phi_2(h) in DPM-Solver-3.
        weight = (exp(h) - 1.0) / 2.0 if order == 2 else h * phi(2, h)
        euler = ctx.to(start.x, start.denoised, start.sigma, sigma_next)
        return euler - slope * (sigma_next * h * weight)

    def _place(self, ctx: StepContext) -> tuple[int, int]:
        """Order of the interval that the step is in, and the number of the step there."""
        to_zero = self.end == "denoised" and ctx.grid[-1] == 0
        places = [(order, j) for order in orders(max(1, len(ctx.grid) - 1 - to_zero)) for j in range(order)]
        return places[ctx.index] if ctx.index < len(places) else (1, 0)
