"""Sampling from consistency models: the data estimate, noised again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import sqrt
from kdiff_core.parameters import not_negative


@frozen
class Consistency(StepSampler):
    """Multistep consistency sampling: take the data estimate for a sample, and add noise to it.

    Song et al. 2023, arXiv:2303.01469, Algorithm 1; with ``sigma_min = 0`` the sampler of latent consistency
    models (Luo et al. 2023, arXiv:2310.04378, Algorithm 3). It is for models whose data estimate is a sample,
    of order 1; of any other model it makes samples with too little variance.

    Attributes:
        sigma_min: Level of the model's data estimate, as noise over signal.
        s_noise: Factor of the noise.
    """

    sigma_min: float = field(default=0.0, converter=float, validator=not_negative, metadata={"unit": "sigma"})
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order = 1
    stochastic = True
    path_invariant = True

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What a data estimate that is no sample breaks."""
        return {"output_distribution": "takes the data estimate for a sample, which consistency models give"}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The data estimate at the next level."""
        alpha = ctx.alpha(sigma_next)
        spread = sqrt(sigma_next * sigma_next - (alpha * self.sigma_min) ** 2)
        noise = ctx.noise(sigma, sigma_next)
        return ctx.denoise(x, sigma) * alpha + noise * (spread * self.s_noise)
