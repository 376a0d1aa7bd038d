"""The refined exponential solver, multistep, with ancestral noise."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import phi
from kdiff_core.parameters import not_negative


@frozen
class RESMultistep(StepSampler):
    """RES multistep: exponential Adams-Bashforth of order 2 on the data prediction; one evaluation a step.

    Zhang et al. 2023, arXiv:2308.02157, with ComfyUI's ancestral noise: the solver goes below
    the next level, and fresh noise leads up to it, the noise being split in VE coordinates, so that the
    sampler is the same on every path. The slope of D is that over the way down of the step before, though D
    was evaluated above its end: the steps being longer by as much, the order is 2 with noise too, in
    distribution. The first step, and one whose history is at sigma = 1 on a flow path, is of order 1.

    Attributes:
        eta: Share of fresh noise: 0 is deterministic.
        s_noise: Factor of the fresh noise.
    """

    eta: float = field(default=0.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order, memory = 2, 1
    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with D extrapolated linearly in log-SNR, up with noise."""
        denoised = ctx.denoise(x, sigma)
        down = ctx.path.ratio_down(sigma, sigma_next, self.eta)
        ctx.keep(down=down)
        x = ctx.to(x, denoised, sigma, down)
        if ctx.finite_past and down > 0:
            h = ctx.lambda_(down) - ctx.lambda_(sigma)
            before = ctx.lambda_(ctx.past[0].down) - ctx.lambda_(ctx.past[0].sigma)
            change = (denoised - ctx.past[0].denoised) / before
            x = x + change * (ctx.alpha(down) * h * h * phi(2, -h))
        if not self.eta:
            return x
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise)
