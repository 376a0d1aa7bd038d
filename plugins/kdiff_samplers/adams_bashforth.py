"""Adams-Bashforth methods with exact weights on uneven steps, on any prediction of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import Number, phi
from kdiff_core.parameters import one_of, positive


def divided_differences(values: Sequence[Any], nodes: Sequence[Number]) -> list[Any]:
    """``f[u_0, u_1], f[u_0, u_1, u_2], ...``: Newton's coefficients but the first."""
    table, found = list(values), []
    for width in range(1, len(nodes)):
        pairs = zip(table[:-1], table[1:], nodes[:-width], nodes[width:], strict=True)
        table = [(newer - older) / (new - old) for newer, older, new, old in pairs]
        found.append(table[0])
    return found


def newton_integrals(nodes: Sequence[Number], moments: Sequence[Number]) -> list[Number]:
    """Integrals of ``(u - u_0)``, ``(u - u_0)(u - u_1)``, ..., from those of ``u^0, u^1, ...``."""
    product: list[Number] = [1.0]  # coefficients of u^0, u^1, ...
    integrals = []
    for node in nodes[:-1]:
        product = [a - node * b for a, b in zip([0.0, *product], [*product, 0.0], strict=True)]
        integrals.append(sum(c * moment for c, moment in zip(product, moments, strict=False)))
    return integrals


@frozen
class AdamsBashforth(StepSampler):
    """The polynomial through the newest predictions, integrated exactly; one evaluation a step.

    Its order is the number of predictions used; the first steps have fewer. In log-SNR this is the
    exponential Adams-Bashforth method (Hochbruck and Ostermann 2010, "Exponential integrators") on the
    solutions of Lu et al. 2022, arXiv:2206.00927, eq. 3.4 (noise) and arXiv:2211.01095, eq. 8 (data); in the
    ratio of noise to signal it is DEIS' rho-AB (Zhang and Chen 2022, arXiv:2204.13902). Each is the same on
    every path, and of order 1 the same as Euler's method. History that reaches back to sigma = 1 on a flow
    path, where the place is infinite, is dropped.

    Attributes:
        space: What the polynomial is in: ``"data"`` or ``"noise"`` as functions of log-SNR, the noise as a
            function of ``"ratio"``, noise over signal, or the ``"velocity"`` of a flow path, noise less data,
            as a function of its sigma.
        max_order: Number of predictions used, 1 to 9.
        sigma_data: Standard deviation that the data have for the velocity, which on a flow path takes them as
            they are: 1.
    """

    space: str = field(default="data", validator=one_of("data", "noise", "ratio", "velocity"))
    max_order: int = field(default=3, validator=one_of(*range(1, 10)))
    sigma_data: float = field(default=1.0, converter=float, validator=positive, metadata={"unit": "sigma"})

    path_invariant = True

    @property
    def order(self) -> int:
        """The number of predictions."""
        return self.max_order

    @property
    def memory(self) -> int:
        """The predictions but the newest."""
        return self.max_order - 1

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An exponential Euler step, exact for a constant, and what the differences of the history add."""
        denoised = ctx.denoise(x, sigma)
        value = self._value(ctx, x, denoised, sigma)
        ctx.keep(value=value)
        x = ctx.to(x, denoised, sigma, sigma_next)
        past = [point for point in ctx.past if abs(self._place(ctx, point.sigma)) < math.inf]
        if not past:
            return x
        start = self._place(ctx, sigma)
        h = self._place(ctx, sigma_next) - start
        nodes = [0.0, *((self._place(ctx, point.sigma) - start) / h for point in past)]
        differences = divided_differences([value, *(point.value for point in past)], nodes)
        integrals = newton_integrals(nodes, [self._moment(k, h) for k in range(len(nodes))])
        scale = self._scale(ctx, sigma_next) * h
        for difference, integral in zip(differences, integrals, strict=True):
            x = x + difference * (scale * integral)
        return x

    def _value(self, ctx: StepContext, x: Any, denoised: Any, sigma: float) -> Any:
        """The prediction."""
        if self.space == "data":
            return denoised
        noise = ctx.eps(x, denoised, sigma)
        return noise - denoised / self.sigma_data if self.space == "velocity" else noise

    def _place(self, ctx: StepContext, sigma: float) -> float:
        """Where on its axis a level is."""
        if self.space == "ratio":
            return ctx.path.ratio(sigma)
        if self.space == "velocity":
            return sigma / (self.sigma_data * ctx.alpha(sigma) + sigma)
        return ctx.lambda_(sigma)

    def _moment(self, power: int, h: float) -> float:
        """Integral of ``u^power`` over the step, u from 0 to 1, under the weight of the exact solution."""
        if self.space in ("ratio", "velocity"):
            return 1.0 / (power + 1)
        return math.factorial(power) * phi(power + 1, -h if self.space == "data" else h)

    def _scale(self, ctx: StepContext, sigma_next: float) -> float:
        """What a unit of the integral moves the state by."""
        alpha = ctx.alpha(sigma_next)
        velocity = self.sigma_data * alpha + sigma_next
        return {"noise": -sigma_next, "velocity": velocity}.get(self.space, alpha)
