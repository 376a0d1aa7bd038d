"""DPM-Solver++ (SDE), single-step."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.parameters import fraction, not_negative


@frozen
class DPMppSDE(StepSampler):
    """A two-stage ancestral step in log-SNR with noise at both stages; order 2, with noise in distribution.

    Two evaluations a step. Katherine Crowson's stochastic form of DPM-Solver++(2S) in k-diffusion (Lu et
    al. 2022, arXiv:2211.01095). Its noise at the stage and at the end are increments of one Brownian
    path: with independent draws the output variance is half of what it should be at ten steps.

    Attributes:
        eta: Share of fresh noise, 0 (deterministic) to 1.
        s_noise: Factor of the fresh noise.
        r: Place of the stage, as a fraction of the step in log-SNR.
    """

    eta: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)
    r: float = field(default=0.5, converter=float, validator=fraction)

    order = 2
    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An ancestral step to the stage, then one of the whole step with both estimates."""
        stage = ctx.between(sigma, sigma_next, self.r)
        denoised = ctx.denoise(x, sigma)
        middle = ctx.ancestral(x, denoised, sigma, stage, self.eta, self.s_noise)
        blend = denoised + (ctx.denoise(middle, stage) - denoised) / (2.0 * self.r)
        return ctx.ancestral(x, blend, sigma, sigma_next, self.eta, self.s_noise)
