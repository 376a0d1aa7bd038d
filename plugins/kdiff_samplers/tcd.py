"""Trajectory consistency distillation's sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

from kdiff_core import StepContext, StepSampler
from kdiff_core.parameters import not_negative


@frozen
class TCD(StepSampler):
    """Strategic stochastic sampling: go below the next level with one evaluation, then up with fresh noise.

    Zheng et al. 2024, arXiv:2402.19159, Algorithm 4, whose gamma is `eta`; of order 1. It goes down to the
    time ``(1 - eta) t`` of the model's process; where there is none, to ``1 - eta`` of the next level. With
    ``eta = 0`` it is DDIM, with 1 LCM. In between it is for models that were distilled to make such leaps;
    of any other model it makes samples with too little variance.

    Attributes:
        eta: How far below the next level a step goes, 0 to 1.
        s_noise: Factor of the noise.
    """

    eta: float = field(default=0.3, converter=float, validator=[not_negative, validators.le(1.0)])
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order = 1

    @property
    def path_invariant(self) -> bool:
        """Without noise, or down to the data: a share of a level is another on each path."""
        return self.eta in (0.0, 1.0)

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What leaps that do not get smaller break."""
        why = "leaps down by a share of the level on each step, which is right for distilled models only"
        return {"output_distribution": why} if self.eta else {}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Down with one evaluation, up with noise."""
        down = (1.0 - self.eta) * sigma_next
        if self.eta and ctx.process is not None:
            down = min(ctx.process.sigma((1.0 - self.eta) * ctx.process.t(sigma_next)), sigma_next)
        x = ctx.to(x, ctx.denoise(x, sigma), sigma, down)
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise) if self.eta else x
