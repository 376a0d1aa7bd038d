"""Sampling from consistency models: the data estimate, noised again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import sqrt
from kdiff_core.parameters import not_negative


@frozen
class Consistency(StepSampler):
    """Multistep consistency sampling: take the data estimate for a sample, and add noise to it.

    Song et al. 2023, arXiv:2303.01469, Algorithm 1; with ``sigma_min = 0`` the sampler of latent consistency
    models (Luo et al. 2023, arXiv:2310.04378, Algorithm 3). It is for models whose data estimate is a sample,
    of order 1; of any other model it makes samples with too little variance.

    Continuous-time consistency models (sCM: Lu and Song 2024, arXiv:2410.11081; SANA-Sprint: Chen et al.
    2025, arXiv:2503.09641) are sampled so too: a TrigFlow state ``cos(t) x0 + sin(t) z``, z of the data's
    standard deviation `sigma_data`, is a VE state times ``cos(t)``, of level ``sigma_data tan(t)``.

    Attributes:
        sigma_min: Level of the model's data estimate, as noise over signal.
        s_noise: Factor of the noise.
        s_noise_end: What that factor becomes, linearly with the steps, at the last one. Default: it stays.
    """

    sigma_min: float = field(default=0.0, converter=float, validator=not_negative, metadata={"unit": "sigma"})
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise_end: float | None = field(default=None, validator=optional(not_negative))

    order = 1
    stochastic = True
    path_invariant = True

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What a data estimate that is no sample breaks."""
        known = {"output_distribution": "takes the data estimate for a sample, which consistency models give"}
        if self.s_noise_end:
            known["s_noise_is_a_factor_of_the_noise"] = "s_noise is the factor of the first step alone"
        return known

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The data estimate at the next level."""
        alpha = ctx.alpha(sigma_next)
        spread = sqrt(sigma_next * sigma_next - (alpha * self.sigma_min) ** 2)
        noise = ctx.noise(sigma, sigma_next)
        return ctx.denoise(x, sigma) * alpha + noise * (spread * self._factor(ctx))

    def _factor(self, ctx: StepContext) -> float:
        """That of the noise on this step."""
        if self.s_noise_end is None:
            return self.s_noise
        return self.s_noise + (self.s_noise_end - self.s_noise) * ctx.index / max(len(ctx.grid) - 2, 1)
