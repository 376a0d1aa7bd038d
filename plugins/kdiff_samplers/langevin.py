"""Predictor-corrector sampling: Langevin steps at each level, for any one-step solver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import optional

from kdiff_core import StepContext, StepSampler, get_sampler
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import sqrt
from kdiff_core.parameters import fraction, positive, whole

from .per_leaf import per_leaf
from .wrapped import Wrapped


def _without_memory(instance: object, attribute: Attribute[Any], solver: Any) -> None:
    if not isinstance(solver, StepSampler) or solver.memory:
        raise ParameterError(
            f"PredictorCorrector does not make sense for {solver!r:.60}, which is no sampler, or reads "
            "earlier points though a correction moves the state off them; use one such as 'euler' or 'ito'"
        )


def _square(part: Any) -> Any:
    """Squared norm of each sample, ``(B, 1, ...)``."""
    return part.square().reshape(len(part), -1).sum(1).reshape(-1, *[1] * (part.ndim - 1))


@frozen
class PredictorCorrector(Wrapped):
    """Langevin corrections of the state at each level, then a step of a solver, whose order it has.

    Song et al. 2021, arXiv:2011.13456, Algorithms 2 and 3, but for the place of the corrections: here they
    come before each prediction, as hosts have them, not after. A correction is the exact Langevin step for a
    constant D: ``alpha D + sigma (sqrt(1 - delta) eps + sqrt(delta) z)``, eps being the noise of the state
    given D. Where the data have the variance v and the state ``S = alpha^2 v + sigma^2``, it takes the part
    ``(1 - sqrt(1 - delta))^2 (1 - r) r``, ``r = sigma^2 / S``, from the state's variance, so less than
    ``delta^2 / 16`` for a small delta, and nothing where there is only noise; the Euler-Maruyama step of the
    paper adds ``(delta r / 2)^2``, four times as much at the worst. As each correction errs by that
    much, a fixed delta leaves an error of the order of delta, however many the steps.

    Attributes:
        solver: The predictor: a sampler without memory, stochastic or not, or its name.
        corrections: Langevin steps at each level, one evaluation each.
        delta: Share of the noise's variance that a correction renews, above 0 to 1.
        snr: In place of `delta`, the paper's Euler-Maruyama step of the size ``2 (snr |z| / |score|)^2``, by
            the norms of each sample and tensor by itself; not linear, and for samples of many values only.
    """

    solver: StepSampler = field(default="ito", converter=get_sampler, validator=_without_memory)
    corrections: int = field(default=1, validator=whole(0))
    delta: float = field(default=0.01, converter=float, validator=fraction)
    snr: float | None = field(default=None, validator=optional(positive))

    reaches_zero = True

    @property
    def stochastic(self) -> bool:
        """Whether there are corrections, or the solver adds noise."""
        return self.corrections > 0 or self.solver.stochastic

    @property
    def linear(self) -> bool:
        """Whether the size of a correction depends on the levels alone, and the solver is linear."""
        return self.solver.linear and not (self.corrections and self.snr)

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what a delta that is not small beside the solver's own error breaks."""
        known = self.solver.known_failures
        if self.corrections and self.snr:
            why = "where a sample has few values, its own norms say little of the step that it needs"
            return {**known, "output_distribution_of_samples": why}
        if not self.corrections or self.delta <= 0.02 / 10 ** (self.order - 1):
            return known
        return {**known, "output_distribution": "a fixed delta leaves an error, however many the steps"}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Corrections at the level, then the prediction."""
        for i in range(self.corrections if sigma_next < sigma else 0):
            eps = ctx.eps(x, ctx.denoise(x, sigma), sigma)
            noise = ctx.noise(sigma, sigma_next, f"langevin {i}")
            x = self._corrected(x, eps, noise, sigma)
        return ctx.advance(self.solver, x, sigma, sigma_next)

    def _corrected(self, x: Any, eps: Any, noise: Any, sigma: float) -> Any:
        """The state with a share of its noise `eps` renewed."""
        if self.snr is None:
            return x + (eps * (sqrt(1.0 - self.delta) - 1.0) + noise * sqrt(self.delta)) * sigma
        twice = 2.0 * self.snr**2

        def change(own: Any, new: Any) -> Any:
            # In half precision the noise that a state has may be 0: there is no direction then, nor a step.
            score = _square(own)
            size = twice * _square(new) / score.masked_fill(score == 0, math.inf)  # over sigma^2
            return new * (2.0 * size).sqrt() - own * size

        return x + per_leaf(change, eps, noise) * sigma
