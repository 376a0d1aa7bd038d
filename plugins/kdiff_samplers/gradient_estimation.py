"""Gradient estimation, and the sampler of two parameters that has DDIM and DDPM too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import exp, log
from kdiff_core.parameters import not_negative, positive


def _below_one(instance: object, attribute: Any, value: float) -> None:
    """Accept a number from 0 to 1, 1 excluded."""
    not_negative(instance, attribute, value)
    if value >= 1:
        raise ParameterError(f"{type(instance).__name__}: {attribute.name}={value!r} must be below 1")


@frozen
class GradientEstimation(StepSampler):
    """Euler on a corrected noise prediction, with a share of fresh noise; order 1, one evaluation a step.

    Permenter and Yuan 2023, arXiv:2306.04848, with the fresh noise of their smalldiffusion: the noise is
    estimated as ``gamma eps_i + (1 - gamma) eps_{i-1}``, and fresh noise fills up from the level ``sigma'``
    with ``sigma_next = sigma^mu sigma'^(1 - mu)``. In VE coordinates, so the same on every path. ``gamma=1``
    is DDIM, with ``mu=0.5`` DDPM (Ho et al. 2020, arXiv:2006.11239). The first step, and one whose history is
    at sigma = 1 on a flow path, has ``gamma=1``.

    Attributes:
        gamma: Weight of the newest noise prediction, above 0.
        mu: Place of fresh noise, 0 (none) to below 1.
        s_noise: Factor of the fresh noise.
    """

    gamma: float = field(default=2.0, converter=float, validator=positive)
    mu: float = field(default=0.0, converter=float, validator=_below_one)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order = 1
    path_invariant = True

    @property
    def memory(self) -> int:
        """The noise prediction before the newest, where it counts."""
        return int(self.gamma != 1.0)

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.mu > 0

    @property
    def known_failures(self) -> Mapping[str, str]:
        """On some steps it is better than it says."""
        if self.mu or not 1.2 < self.gamma < 2.1:
            return {}
        ratio = 2.0 * (self.gamma - 1.0)
        why = f"of order 2 on a step {ratio:.3g} times as long as the one before, where it is Adams-Bashforth"
        return {"one_step_order": why}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """A DDIM step with the corrected noise, and fresh noise."""
        denoised = ctx.denoise(x, sigma)
        noise = ctx.eps(x, denoised, sigma)
        ctx.keep(noise=noise)
        ratio, ratio_down = ctx.path.ratio(sigma), ctx.path.ratio(sigma_next)
        if self.mu:
            ratio_down = ratio_down * exp(log(ratio_down / ratio) * (self.mu / (1.0 - self.mu)))
        down = ctx.path.from_ratio(ratio_down) if self.mu else sigma_next
        x = ctx.to(x, denoised, sigma, down)
        if ctx.finite_past:
            change = (noise - ctx.past[0].noise) * (self.gamma - 1.0)
            x = x + change * (ctx.alpha(down) * (ratio_down - ratio))
        if not self.mu:
            return x
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise)
