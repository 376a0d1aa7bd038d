"""DPM-Solver: exponential integrators on the noise prediction, single-step and multistep."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen, validators
from attrs.converters import optional

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import Number, expm1, phi, sqrt
from kdiff_core.parameters import below_one, fraction, one_of

from .reverse_sde import ReverseSDE


def _corrected(ctx: StepContext, x: Any, start: Number, end: Number, slope: Any, curve: Any = None) -> Any:
    """Add to a first-order step from log-SNR `start` what a changing noise prediction contributes to it.

    With ``eps = eps_i + slope u + curve u^2`` over the step, u from 0 to h in log-SNR, the exact solution
    adds ``-sigma' h^2 phi_2(h) slope`` and ``-2 sigma' h^3 phi_3(h) curve`` (eq. 3.4 of the paper).
    """
    h = ctx.lambda_(end) - start
    x = x - slope * (end * h * h * phi(2, h))
    return x if curve is None else x - curve * (2.0 * end * h * h * h * phi(3, h))


def _after_first(instance: DPMSolverS, attribute: Attribute[Any], value: float) -> None:
    if value <= (instance.r1 or 1.0 / 3.0):
        raise ParameterError(f"DPMSolverS: r2={value} must be above r1={instance.r1 or '1/3'}")


@frozen
class DPMSolverS(StepSampler):
    """Single-step DPM-Solver, of order 1, 2 or 3 with as many evaluations a step.

    Lu et al. 2022, arXiv:2206.00927, eq. 3.7 (order 1), Algorithm 1 (order 2, ``r = 1/2``) and Algorithm 2
    (order 3, ``r = 1/3, 2/3``). On a flow path a step from sigma = 1 takes its stages from 0.9999. The
    first stage, of order 1 itself, has no weight in the end, and order 3 is reached, for ``r2 = 2/3`` alone;
    with other places both forms have order 2.

    Attributes:
        solver_order: 1, 2 or 3.
        r1: Place of the first stage, as a part of the step in log-SNR; None for 1/2 (order 2), 1/3 (order 3).
        r2: Place of the second stage, of order 3, above r1.
        solver_type: ``"dpmsolver"``, or ``"taylor"``: the polynomial through all evaluations, integrated
            exactly.
    """

    solver_order: int = field(default=3, validator=one_of(1, 2, 3))
    r1: float | None = field(
        default=None, converter=optional(float), validator=validators.optional(below_one)
    )
    r2: float = field(default=2.0 / 3.0, converter=float, validator=[fraction, _after_first])
    solver_type: str = field(default="dpmsolver", validator=one_of("dpmsolver", "taylor"))

    path_invariant = True

    @property
    def order(self) -> int:
        """The parameter, where the places allow it."""
        return self.solver_order if abs(self.r2 - 2.0 / 3.0) < 1e-9 else min(self.solver_order, 2)

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step, and corrections from stages inside the step."""
        return self.results(ctx, x, sigma, sigma_next)[-1]

    def results(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> list[Any]:
        """The step by each order up to the solver's, the lower ones from its own evaluations."""
        denoised = ctx.denoise(x, sigma)
        euler = ctx.to(x, denoised, sigma, sigma_next)
        if self.solver_order == 1:
            return [euler]
        start = ctx.path.inner_lambda(sigma, sigma_next)
        h = ctx.lambda_(sigma_next) - start
        eps = ctx.eps(x, denoised, sigma)
        r1, r2 = self.r1 or 1.0 / self.solver_order, self.r2
        stage = ctx.between(sigma, sigma_next, r1)
        slope = self._slope(ctx, ctx.to(x, denoised, sigma, stage), stage, eps, r1 * h)
        taylor = self.solver_type == "taylor"
        # Algorithm 1 weighs the slope by h phi_1(h) / 2, which is h phi_2(h) to the order needed.
        second = euler - slope * (sigma_next * h * (h * phi(2, h) if taylor else expm1(h) / 2.0))
        if self.solver_order == 2:
            return [euler, second]
        stage = ctx.between(sigma, sigma_next, r2)
        third = ctx.to(x, denoised, sigma, stage)
        later = self._slope(ctx, _corrected(ctx, third, start, stage, slope), stage, eps, r2 * h)
        if not taylor:
            return [euler, second, _corrected(ctx, euler, start, sigma_next, later)]
        curve = (later - slope) / ((r2 - r1) * h)
        slope = slope - curve * (r1 * h)  # at the step's start, of the parabola
        return [euler, second, _corrected(ctx, euler, start, sigma_next, slope, curve)]

    def _slope(self, ctx: StepContext, x: Any, stage: Number, eps: Any, distance: Number) -> Any:
        """Divided difference of the noise prediction between the step's start and a stage."""
        return (ctx.eps(x, ctx.denoise(x, stage), stage) - eps) / distance


def _weight(ctx: StepContext, sigma: Number, sigma_next: Number, solver_type: str) -> Number:
    """What a unit of the noise prediction's slope takes from a step's end."""
    h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
    return sigma_next * h * (h * phi(2, h) if solver_type == "heun" else expm1(h) / 2.0)


@frozen
class DPMSolverM(StepSampler):
    """Multistep DPM-Solver, of order 1, 2 or 3 with one evaluation a step.

    Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095, Appendix B, on the noise prediction. The quadratic
    term of order 3 is the whole one; published code takes half of it and has order 2. Steps that have less
    history, or whose history would reach back to sigma = 1 on a flow path, are of lower order.

    Attributes:
        solver_order: 1, 2 or 3.
        solver_type: Weight of the slope where it is the only correction: ``"heun"`` (Taylor's), exact if the
            noise prediction is linear in log-SNR, or ``"midpoint"``.
        corrected: False takes half of the quadratic term, as published code does.
    """

    solver_order: int = field(default=2, validator=one_of(1, 2, 3))
    solver_type: str = field(default="heun", validator=one_of("heun", "midpoint"))
    corrected: bool = field(default=True, validator=one_of(True, False))

    path_invariant = True

    @property
    def order(self) -> int:
        """The parameter; 2 where the third order is as published."""
        return self.solver_order if self.corrected else min(self.solver_order, 2)

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
            return x - slope * _weight(ctx, sigma, sigma_next, self.solver_type)
        older = (past[0].eps - past[1].eps) / (lambdas[1] - lambdas[2])
        curve = (slope - older) / (lambdas[0] - lambdas[2])
        slope = slope + curve * (lambdas[0] - lambdas[1])
        return _corrected(ctx, x, lambdas[0], sigma_next, slope, curve if self.corrected else curve * 0.5)


@frozen
class SDEDPMSolver(ReverseSDE):
    """SDE-DPM-Solver: the reverse SDE on the noise prediction, multistep, one evaluation a step.

    Lu et al. 2022, arXiv:2211.01095, Appendix, of order 1 or 2, with noise in distribution; the noise share
    `eta` is that of `ReverseSDE`, 0 being `DPMSolverM`. Its noise grows as ``e^h``: for long steps the data
    prediction (`dpmpp_2m_sde`) is steadier. A step from sigma = 1 on a flow path, where log-SNR is infinite,
    is one of the data prediction, and later ones leave it out.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
        solver_order: 1 or 2.
        solver_type: Correction for the change of the noise prediction: ``"midpoint"`` or ``"heun"`` (exact if
            it is linear in log-SNR).
    """

    solver_order: int = field(default=2, validator=one_of(1, 2))
    solver_type: str = field(default="midpoint", validator=one_of("midpoint", "heun"))

    @property
    def order(self) -> int:
        """The parameter."""
        return self.solver_order

    @property
    def memory(self) -> int:
        """One point less than the order."""
        return self.solver_order - 1

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The exact step for a constant noise prediction, and a correction for its slope in log-SNR."""
        denoised = ctx.denoise(x, sigma)
        eps = ctx.eps(x, denoised, sigma)
        ctx.keep(eps=eps)
        if ctx.alpha(sigma) == 0:
            return self.moved(ctx, x, denoised, sigma, sigma_next)
        h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
        x = ctx.to(x, denoised, sigma, sigma_next)
        if self.eta:
            fresh = ctx.noise(sigma, sigma_next) * (self.s_noise * sqrt(self.eta * expm1(2.0 * h)))
            x = x + (fresh - eps * (self.eta * expm1(h))) * sigma_next
        if not ctx.finite_past:
            return x
        past = ctx.finite_past[0]
        slope = (eps - past.eps) / (ctx.lambda_(sigma) - ctx.lambda_(past.sigma))
        return x - slope * ((1.0 + self.eta) * _weight(ctx, sigma, sigma_next, self.solver_type))
