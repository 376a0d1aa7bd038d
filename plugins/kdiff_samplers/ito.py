"""The reverse SDE with any amount of noise, at a temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import sqrt
from kdiff_core.parameters import not_negative

from .reverse_sde import ReverseSDE


@frozen
class Ito(StepSampler):
    """Ito sampler: ``dx = -(1 + eta^2)/2 g^2 score dt + eta g sqrt(T) dw`` (on VE); order 1.

    Song et al. 2021, arXiv:2011.13456, eq. 6, and the family of Karras et al. 2022, arXiv:2206.00364, eq. 6,
    whose beta is ``eta^2 / sigma`` (times their derivative of sigma). Each step is exact for a constant D,
    where the Euler-Maruyama step is not. ``eta^2`` is the share of noise that is called `eta` elsewhere.

    At a temperature T the samples of normal data are normal with T times the variance: the states tend to the
    density of each level to the power ``1 / T``, the faster the larger eta is. For other data that is so for
    large eta only, where the SDE is Langevin dynamics on each level.

    Attributes:
        eta: Amount of noise: 0 is the probability-flow ODE (Euler), 1 the reverse SDE.
        temperature: Factor of the variance of the noise; 0 leaves none.
    """

    eta: float = field(default=1.0, converter=float, validator=not_negative)
    temperature: float = field(default=1.0, converter=float, validator=not_negative)

    order = 1
    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0 and self.temperature > 0

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What another temperature than 1 breaks."""
        if self.temperature == 1.0 or not self.stochastic:
            return {}
        return {"output_distribution": "the variance is that of the data times the temperature, by intent"}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """One evaluation."""
        sde = ReverseSDE(self.eta**2, sqrt(self.temperature))
        return sde.moved(ctx, x, ctx.denoise(x, sigma), sigma, sigma_next)
