"""Stochastic DPM-Solver++, multistep: 2M SDE and 3M SDE."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext
from kdiff_core.numerics import expm1, phi
from kdiff_core.parameters import one_of

from .reverse_sde import ReverseSDE


@frozen
class DPMpp2MSDE(ReverseSDE):
    """DPM-Solver++(2M) for the reverse SDE: order 2, with noise in distribution; one evaluation a step.

    Lu et al. 2022, arXiv:2211.01095, Appendix F; the noise share `eta` and both forms of the correction
    are k-diffusion's.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
        solver_type: Correction for the change of D: ``"midpoint"`` or ``"heun"`` (exact if D is linear in
            log-SNR).
    """

    solver_type: str = field(default="midpoint", validator=one_of("midpoint", "heun"))

    order, memory = 2, 1

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The exact step for a constant D, and a correction for its slope in log-SNR."""
        denoised = ctx.denoise(x, sigma)
        x = self.moved(ctx, x, denoised, sigma, sigma_next)
        if not ctx.past:
            return x
        h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
        slope = (denoised - ctx.past[0].denoised) / (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma))
        alpha, rate = ctx.alpha(sigma_next), (1.0 + self.eta) * h
        if self.solver_type == "heun":
            return x + slope * (alpha * h * rate * phi(2, -rate))
        return x + slope * (alpha * h * -0.5 * expm1(-rate))


@frozen
class DPMpp3MSDE(ReverseSDE):
    """DPM-Solver++(3M) for the reverse SDE, one evaluation a step.

    k-diffusion's multistep form (Lu et al. 2022, arXiv:2211.01095, Appendix B, with noise). The published
    update halves the quadratic term that the exponential integrator needs, and so has order 2 (measured
    2.0); ``corrected=True`` takes the whole term and has order 3. At few steps the published one has the
    smaller error, being damped.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
        corrected: Whether to take the right quadratic term.
    """

    corrected: bool = field(default=False, validator=one_of(False, True))

    memory = 2

    @property
    def order(self) -> int:
        """Order 2 as published, and with noise; 3 corrected and without."""
        return 3 if self.corrected and not self.eta else 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The exact step for a constant D, and corrections for its first two derivatives in log-SNR."""
        denoised = ctx.denoise(x, sigma)
        x = self.moved(ctx, x, denoised, sigma, sigma_next)
        if not ctx.past:
            return x
        lambdas = [ctx.lambda_(level) for level in (sigma, *(point.sigma for point in ctx.past))]
        h = ctx.lambda_(sigma_next) - lambdas[0]
        slope = (denoised - ctx.past[0].denoised) / (lambdas[0] - lambdas[1])
        curve = None
        if len(ctx.past) > 1:
            older = (ctx.past[0].denoised - ctx.past[1].denoised) / (lambdas[1] - lambdas[2])
            curve = (slope - older) / (lambdas[0] - lambdas[2])  # half the second derivative
            slope = slope + curve * (lambdas[0] - lambdas[1])
        # Over the step D = D_i + slope u + curve u^2, under the exponential weight of the exact solution.
        alpha, rate = ctx.alpha(sigma_next), (1.0 + self.eta) * h
        x = x + slope * (alpha * h * rate * phi(2, -rate))
        if curve is None:
            return x
        return x + curve * (alpha * h * h * rate * phi(3, -rate) * (2.0 if self.corrected else 1.0))
