"""SPC: Euler's predictor, an Adams corrector, and a blend of the two."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.parameters import fraction, one_of

from .uni_pc import exponential_weights


@frozen
class SPC(StepSampler):
    """A predictor and a corrector, blended, one evaluation a step; a step is of order 1, a run of order 2.

    Beinsezii 2025, skrample, has the idea, without a paper; its own form does not converge, so this one
    differs: the evaluation at a predicted state corrects it by the exponential Adams-Moulton method in lambda
    (Hochbruck and Ostermann 2010, "Exponential integrators"), and the next step starts from there. A step
    ends in an Euler prediction, so is of order 1; the corrected states are of order 2, whatever the
    corrector's, since Euler's error is in the evaluations. Unless the blend is 1 a run is of order 1 too.

    With `corrector_order` 2 and a blend of 1 it is UniPC of order 1; `uni_pc` has better predictors.

    Attributes:
        corrector_order: Number of evaluations that the corrector interpolates, the newest included, 2 to 4.
        blend: Part of the correction that is made, above 0 to 1.
    """

    corrector_order: int = field(default=4, validator=one_of(2, 3, 4))
    blend: float = field(default=1.0, converter=float, validator=fraction)

    order = 1
    path_invariant = True

    @property
    def memory(self) -> int:
        """The evaluations but the newest."""
        return self.corrector_order - 1

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Correct the state with the new evaluation, then predict the next one."""
        denoised = ctx.denoise(x, sigma)
        if ctx.finite_past:
            corrected = self._corrected(ctx, denoised, sigma)
            x = corrected if self.blend == 1.0 else x * (1.0 - self.blend) + corrected * self.blend
            ctx.keep(x=x)
        return ctx.to(x, denoised, sigma, sigma_next)

    def _corrected(self, ctx: StepContext, denoised: Any, sigma: float) -> Any:
        """The step to here again, with the evaluations at both of its ends."""
        start, *older = ctx.finite_past
        origin, h = ctx.lambda_(start.sigma), ctx.lambda_(sigma) - ctx.lambda_(start.sigma)
        nodes = [(ctx.lambda_(point.sigma) - origin) / h for point in older]
        weights = exponential_weights([0.0, 1.0, *nodes], h)[1:]
        x = ctx.to(start.x, start.denoised, start.sigma, sigma)
        for weight, other in zip(weights, [denoised, *(point.denoised for point in older)], strict=True):
            x = x + (other - start.denoised) * (ctx.alpha(sigma) * weight)
        return x
