"""UniPC: a predictor and a corrector that share their evaluations, on the data prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import Grid, Path, Point, Process, StepContext, StepSampler
from kdiff_core.numerics import Number, expm1, lagrange_weights, phi
from kdiff_core.parameters import level, one_of

Evaluations = list[tuple[float, Any]]


def exponential_weights(nodes: Sequence[Number], rate: Number) -> list[Number]:
    """Integrals over a step, under its exponential weight, of the Lagrange polynomials on `nodes`.

    They are ``int_0^1 rate e^{-rate (1 - u)} L_j(u) du``; those of ``u^p`` are ``rate p! phi_{p+1}(-rate)``.
    The weights of an exponential Adams step on uneven nodes (Hochbruck and Ostermann 2010, section 5).

    Args:
        nodes: Distinct points in units of the step: 0 its start, 1 its end, below 0 the history.
        rate: Size of the step in log-SNR, times the rate of the exponential.

    Returns:
        One weight for each node; they sum to ``1 - e^-rate``.
    """
    moments = [rate * math.factorial(p) * phi(p + 1, -rate) for p in range(len(nodes))]
    return lagrange_weights(nodes, moments)


@frozen
class UniPC(StepSampler):
    """UniPC on the data prediction, one evaluation a step; of order `solver_order`.

    Zhao et al. 2023, arXiv:2302.04867: the corrector UniC and the predictor UniP, in the multistep form. The
    evaluation at a predicted state also corrects it: the step that begins there starts from the corrected
    state, with the evaluation kept. Corrected states have one order more, but a step, and the run, ends in a
    predicted one. The weights solve the order conditions exactly, whereby B(h) drops out,
    but for one extra node (predictor of order 2, corrector of order 1), which gets the paper's ``a_1 = 1/2``
    for B1 and B2.

    Attributes:
        solver_order: 1 to 4; steps with less history are of lower order.
        variant: The function B(h) where it matters: ``"bh1"`` is h, ``"bh2"`` is ``e^h - 1``; ``"exact"``
            solves them for a single node too.
        corrector: Whether to correct.
        lower_order_final: Where the order is at most the number of steps that are left, which pays with few
            steps: on grids that end in 0 (``"zero"``), ``"always"`` or ``"never"``.
        last: Level to visit in place of 0 at the end; 0 ends with D.
    """

    solver_order: int = field(default=3, validator=one_of(1, 2, 3, 4))
    variant: str = field(default="bh1", validator=one_of("bh1", "bh2", "exact"))
    corrector: bool = field(default=True, validator=one_of(False, True))
    lower_order_final: str = field(default="zero", validator=one_of("zero", "always", "never"))
    last: float = field(default=0.0, converter=float, validator=level, metadata={"unit": "sigma"})

    path_invariant = True

    @property
    def order(self) -> int:
        """That of a step, which ends in a predicted state; corrected ones have one order more."""
        return self.solver_order

    @property
    def memory(self) -> int:
        """What the predictor needs, and one more for the corrector."""
        return self.solver_order - (not self.corrector)

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What the ways of ending break."""
        failures = {}
        if self.lower_order_final == "always" and self.solver_order > 1:
            failures["one_step_order"] = "by choice the last step, which is measured, is of order 1"
        if self.last:
            why = f"stops at level {self.last} in place of 0, as ComfyUI does"
            broken = ("reaches_zero", "constant_denoiser_is_exact", "shift_equivariance")
            failures |= dict.fromkeys(broken, why)
        return failures

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The grid, its zero replaced."""
        levels = list(grid)
        return [*levels[:-1], self.last] if levels[-1] == 0 and 0 < self.last < levels[-2] else grid

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Correct the state with the new evaluation, then predict the next one."""
        denoised = ctx.denoise(x, sigma)
        past = ctx.finite_past
        lowered = ("always", "zero") if ctx.grid[-1] == 0 else ("always",)
        left = ctx.steps_left if self.lower_order_final in lowered else self.solver_order
        if self.corrector and past:
            order = min(self.solver_order, left + 1)
            others = [(sigma, denoised), *_evaluations(past[1:order])]
            x = self._move(ctx, past[0].x, past[0].denoised, others, past[0].sigma, sigma)
            ctx.keep(x=x)
        order = min(self.solver_order, left)
        return self._move(ctx, x, denoised, _evaluations(past[: order - 1]), sigma, sigma_next)

    def _move(
        self,
        ctx: StepContext,
        x: Any,
        denoised: Any,
        others: Evaluations,
        sigma: float,
        to: float,
    ) -> Any:
        """Exact step for a constant D, and what the differences to evaluations at other levels add."""
        end = ctx.to(x, denoised, sigma, to)
        start, h = ctx.lambda_(sigma), ctx.lambda_(to) - ctx.lambda_(sigma)
        nodes = [(ctx.lambda_(level) - start) / h for level, _ in others]
        if len(others) == 1 and self.variant != "exact":
            weights = [(h if self.variant == "bh1" else -expm1(-h)) / (2.0 * nodes[0])]
        else:
            weights = exponential_weights([0.0, *nodes], h)[1:] if others else []
        for weight, (_, other) in zip(weights, others, strict=True):
            end = end + (other - denoised) * (ctx.alpha(to) * weight)
        return end


def _evaluations(past: Sequence[Point]) -> Evaluations:
    return [(point.sigma, point.denoised) for point in past]
