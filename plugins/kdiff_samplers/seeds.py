"""SEEDS: single-step exponential solvers for the reverse SDE."""

from __future__ import annotations

import math
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext
from kdiff_core.numerics import phi
from kdiff_core.parameters import fraction, one_of

from .reverse_sde import ReverseSDE


@frozen
class _Seeds(ReverseSDE):
    """What a change of D adds."""

    def _slope(self, ctx: StepContext, change: Any, sigma: float, to: float, place: float) -> Any:
        """What a linear change of D in log-SNR, `change` at the fraction `place`, adds to a step."""
        rate = (1.0 + self.eta) * (ctx.lambda_(to) - ctx.path.inner_lambda(sigma, to))
        return change * (ctx.alpha(to) * rate * phi(2, -rate) / place)


@frozen
class Seeds2(_Seeds):
    """SEEDS-2: two evaluations a step; order 2, with noise in distribution.

    Gonzalez et al. 2023, arXiv:2305.14267 (data prediction); the noise share `eta` is ComfyUI's.
    The noise of the stage is that of the first part of the step. With ``r = 1`` and ``"phi_2"`` it is the
    exponential Heun method.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
        r: Place of the stage, as a fraction of the step in log-SNR.
        solver_type: Weight of the stage: ``"phi_1"`` as if D were constant, ``"phi_2"`` exact if it
            is linear in log-SNR.
    """

    r: float = field(default=0.5, converter=float, validator=fraction)
    solver_type: str = field(default="phi_1", validator=one_of("phi_1", "phi_2"))

    order = 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """A step to the stage, then one of the whole step with both evaluations."""
        levels = (sigma, sigma_next)
        if self.r < 1.0:
            levels = (sigma, ctx.between(sigma, sigma_next, self.r), sigma_next)
        denoised = ctx.denoise(x, sigma)
        middle = self.moved(ctx, x, denoised, *levels[:2])
        change = ctx.denoise(middle, levels[1]) - denoised
        if self.solver_type == "phi_1":
            return self.moved(ctx, x, denoised + change / (2.0 * self.r), *levels)
        return self.moved(ctx, x, denoised, *levels) + self._slope(ctx, change, sigma, sigma_next, self.r)


@frozen
class Seeds3(_Seeds):
    """SEEDS-3: three evaluations a step; order 3 without noise, with it 2 in distribution.

    Gonzalez et al. 2023, arXiv:2305.14267 (data prediction); the noise share `eta` is ComfyUI's.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
        r_1: Place of the first stage, as a fraction of the step in log-SNR.
        r_2: Place of the second; other than 2/3 it costs an order.
    """

    r_1: float = field(default=1 / 3, converter=float, validator=fraction)
    r_2: float = field(default=2 / 3, converter=float, validator=fraction)

    @property
    def order(self) -> int:
        """Measured: 3 without noise and with the second stage at two thirds, else 2."""
        return 3 if not self.eta and math.isclose(self.r_2, 2 / 3) else 2

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Two stages, each with the noise up to it, then the whole step."""
        one, two = (ctx.between(sigma, sigma_next, r) for r in (self.r_1, self.r_2))
        denoised = ctx.denoise(x, sigma)
        change = ctx.denoise(self.moved(ctx, x, denoised, sigma, one), one) - denoised
        x_2 = self.moved(ctx, x, denoised, sigma, one, two)
        x_2 = x_2 + self._slope(ctx, change, sigma, two, self.r_1 / self.r_2)
        change = ctx.denoise(x_2, two) - denoised
        end = self.moved(ctx, x, denoised, sigma, one, two, sigma_next)
        return end + self._slope(ctx, change, sigma, sigma_next, self.r_2)
