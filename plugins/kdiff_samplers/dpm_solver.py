"""DPM-Solver: exponential integrators on the noise prediction, single-step and multistep."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import exp, phi
from kdiff_core.parameters import one_of


def _corrected(ctx: StepContext, x: Any, start: float, end: float, slope: Any, curve: Any = None) -> Any:
    """Add to a first-order step from log-SNR `start` what a changing noise prediction contributes to it.

    With ``eps = eps_i + slope u + curve u^2`` over the step, u from 0 to h in log-SNR, the exact solution
    adds ``-sigma' h^2 phi_2(h) slope`` and ``-2 sigma' h^3 phi_3(h) curve`` (eq. 3.4 of the paper).
    """
    h = ctx.lambda_(end) - start
    x = x - slope * (end * h * h * phi(2, h))
    return x if curve is None else x - curve * (2.0 * end * h * h * h * phi(3, h))


@frozen
class DPMSolverS(StepSampler):
    """Single-step DPM-Solver, of order 1, 2 or 3 with as many evaluations a step.

    Lu et al. 2022, arXiv:2206.00927, eq. 3.7 (order 1), Algorithm 1 (order 2, ``r = 1/2``) and Algorithm 2
    (order 3, ``r = 1/3, 2/3``). On a flow path a step from sigma = 1 takes its stages from 0.9999.

    Attributes:
        solver_order: 1, 2 or 3.
    """

    solver_order: int = field(default=3, validator=one_of(1, 2, 3))

    path_invariant = True

    @property
    def order(self) -> int:
        """The parameter."""
        return self.solver_order

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step, and corrections from stages inside the step."""
        denoised = ctx.denoise(x, sigma)
        euler = ctx.to(x, denoised, sigma, sigma_next)
        if self.solver_order == 1:
            return euler
        start = ctx.path.inner_lambda(sigma, sigma_next)
        h = ctx.lambda_(sigma_next) - start
        eps = ctx.eps(x, denoised, sigma)
        r = 1.0 / self.solver_order
        stage = ctx.between(sigma, sigma_next, r)
        slope = self._slope(ctx, ctx.to(x, denoised, sigma, stage), stage, eps, r * h)
        if self.solver_order == 2:
            # Algorithm 1 weighs the slope by h phi_1(h) / 2, which is h phi_2(h) to the order needed.
            return euler - slope * (sigma_next * h * (exp(h) - 1.0) / 2.0)
        stage = ctx.between(sigma, sigma_next, 2.0 * r)
        second = ctx.to(x, denoised, sigma, stage)
        slope = self._slope(ctx, _corrected(ctx, second, start, stage, slope), stage, eps, 2.0 * r * h)
        return _corrected(ctx, euler, start, sigma_next, slope)

    def _slope(self, ctx: StepContext, x: Any, stage: float, eps: Any, distance: float) -> Any:
        """Divided difference of the noise prediction between the step's start and a stage."""
        return (ctx.eps(x, ctx.denoise(x, stage), stage) - eps) / distance


@frozen
class DPMSolverM(StepSampler):
    """Multistep DPM-Solver, of order 1, 2 or 3 with one evaluation a step.

    Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095, Appendix B, on the noise prediction. The quadratic
    term of order 3 is the whole one (published code takes half of it and has order 2). Steps that have less
    history, or whose history would reach back to sigma = 1 on a flow path, are of lower order.

    Attributes:
        solver_order: 1, 2 or 3.
    """

    solver_order: int = field(default=2, validator=one_of(1, 2, 3))

    path_invariant = True

    @property
    def order(self) -> int:
        """The parameter."""
        return self.solver_order

    @property
    def memory(self) -> int:
        """One point less than the order."""
        return self.solver_order - 1

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step, and corrections from the history."""
        denoised = ctx.denoise(x, sigma)
        eps = ctx.eps(x, denoised, sigma)
        ctx.keep(eps=eps)
        x = ctx.to(x, denoised, sigma, sigma_next)
        past = ctx.finite_past
        if not past:
            return x
        lambdas = [ctx.lambda_(level) for level in (sigma, *(point.sigma for point in past))]
        slope = (eps - past[0].eps) / (lambdas[0] - lambdas[1])
        if len(past) == 1:
            return _corrected(ctx, x, lambdas[0], sigma_next, slope)
        older = (past[0].eps - past[1].eps) / (lambdas[1] - lambdas[2])
        curve = (slope - older) / (lambdas[0] - lambdas[2])
        return _corrected(ctx, x, lambdas[0], sigma_next, slope + curve * (lambdas[0] - lambdas[1]), curve)
