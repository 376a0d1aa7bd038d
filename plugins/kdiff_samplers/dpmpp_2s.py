"""DPM-Solver++ of order 2, single-step."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import phi
from kdiff_core.parameters import below_one, one_of


@frozen
class DPMpp2S(StepSampler):
    """DPM-Solver++(2S): order 2 in log-SNR, two evaluations a step.

    Lu et al. 2022, arXiv:2211.01095, Algorithm 1, there with ``r = 1/2``.

    Attributes:
        r: Place of the stage, as a part of the step in log-SNR.
        solver_type: Weight of the stage: ``"midpoint"``, D in the middle of the step, or ``"heun"``
            (Taylor's), exact if D is linear in log-SNR.
        stage: Where the inner stage of a step from sigma = 1 on a flow path lies, whose log-SNR is
            ``-inf``: ``"middle"`` of the way from 0.9999, or ``"start"``: at 0.9999 (ComfyUI).
    """

    r: float = field(default=0.5, converter=float, validator=below_one)
    solver_type: str = field(default="midpoint", validator=one_of("midpoint", "heun"))
    stage: str = field(default="middle", validator=one_of("middle", "start"))

    order = 2
    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The data estimate between the step's start and the stage, or behind it, carries the whole step."""
        at_start = self.stage == "start" and ctx.alpha(sigma) == 0
        level = ctx.between(sigma, sigma_next, 0.0 if at_start else self.r)
        denoised = ctx.denoise(x, sigma)
        second = ctx.denoise(ctx.to(x, denoised, sigma, level), level)
        h = ctx.lambda_(sigma_next) - ctx.path.inner_lambda(sigma, sigma_next)
        place = 0.5 if self.solver_type == "midpoint" else phi(2, -h) / phi(1, -h)
        if place != self.r:
            second = denoised + (second - denoised) * (place / self.r)
        return ctx.to(x, second, sigma, sigma_next)
