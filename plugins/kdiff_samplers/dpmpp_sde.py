"""DPM-Solver++ (SDE), single-step."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from attrs.validators import and_, ge, gt, le

from kdiff_core import StepContext, StepSampler


@frozen
class DPMppSDE(StepSampler):
    """A two-stage ancestral step in log-SNR with noise at both stages; order 2 without noise.

    Two evaluations a step. Katherine Crowson's stochastic form of DPM-Solver++(2S) in k-diffusion (Lu et
    al. 2022, arXiv:2211.01095). Its noise at the stage and at the end are increments of one Brownian
    path: with independent draws the output variance is half of what it should be at ten steps.

    Attributes:
        eta: Share of fresh noise, 0 (deterministic) to 1.
        s_noise: Factor of the fresh noise.
        r: Place of the stage, as a fraction of the step in log-SNR.
    """

    eta: float = field(default=1.0, converter=float, validator=ge(0.0))
    s_noise: float = field(default=1.0, converter=float, validator=ge(0.0))
    r: float = field(default=0.5, converter=float, validator=and_(gt(0.0), le(1.0)))

    @property
    def order(self) -> int:
        """Order 1 with noise, 2 without."""
        return 1 if self.eta else 2

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An ancestral step to the stage, then one of the whole step with both estimates."""
        stage = ctx.between(sigma, sigma_next, self.r)
        denoised = ctx.denoise(x, sigma)
        middle = self._ancestral(ctx, x, denoised, sigma, stage)
        second = ctx.denoise(middle, stage)
        blend = denoised + (second - denoised) / (2.0 * self.r)
        return self._ancestral(ctx, x, blend, sigma, sigma_next)

    def _ancestral(self, ctx: StepContext, x: Any, denoised: Any, sigma: float, to: float) -> Any:
        down = ctx.path.ratio_down(sigma, to, self.eta)
        x = ctx.to(x, denoised, sigma, down)
        return ctx.renoise(x, down, to, ctx.noise(sigma, to), self.s_noise) if self.eta else x
