"""The reverse SDE with a share of noise, and its exact step for a constant data estimate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import exp, expm1, sqrt
from kdiff_core.parameters import not_negative


@frozen
class ReverseSDE(StepSampler):
    """The base of samplers that solve it: 0 of noise is the probability-flow ODE, 1 the reverse SDE."""

    eta: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    path_invariant = True

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def moved(self, ctx: StepContext, x: Any, denoised: Any, *levels: float) -> Any:
        """Move a state as if the data were `denoised`, over adjoining intervals, each with noise of its own.

        Lu et al. 2022, arXiv:2211.01095, eq. 10 for ``eta = 1``; for the noise share `eta` the new state is
        ``sigma'/sigma e^{-eta h} x + alpha' (1 - e^{-(1 + eta) h}) D + sigma' sqrt(1 - e^{-2 eta h}) z``.
        """
        noise, decay = None, 1.0
        for start, end in pairwise(levels) if self.eta else ():
            amount = self.eta * (ctx.lambda_(end) - ctx.lambda_(start))
            fresh = ctx.noise(start, end) * (self.s_noise * sqrt(-expm1(-2.0 * amount)))
            noise = fresh if noise is None else noise * exp(-amount) + fresh
            decay = decay * exp(-amount)
        sigma, sigma_next = levels[0], levels[-1]
        # alpha' e^{-h} = alpha sigma' / sigma, which is right also where the path begins (h = inf).
        ratio = sigma_next / sigma * decay
        x = x * ratio + denoised * (ctx.alpha(sigma_next) - ctx.alpha(sigma) * ratio)
        return x if noise is None else x + noise * sigma_next
