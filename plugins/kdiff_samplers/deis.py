"""DEIS: exponential multistep with a polynomial in the time of a VP process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import Number, exp, gauss_legendre, log, sqrt
from kdiff_core.parameters import one_of, positive

from .adams_bashforth import divided_differences

# The linear VP process with level 0.002 at time 0.001 and 80 at 1, as Karras et al. 2022, arXiv:2206.00364,
# fit it: log(1 + sigma^2) = BETA_D t^2 / 2 + BETA_MIN t.
_EPSILON = 1e-3
_LOW, _HIGH = math.log1p(0.002**2), math.log1p(80.0**2)
BETA_D = 2.0 * (_LOW / _EPSILON - _HIGH) / (_EPSILON - 1.0)
BETA_MIN = _HIGH - BETA_D / 2.0
# A panel of 2 in log sigma, with 12 points: the integrand is analytic to pi / 2 off the axis.
PANEL = 2.0
POINTS = 10_000


def vp_time(sigma: Number) -> Number:
    """Time at which the VP process has a level, in VE coordinates."""
    return (sqrt(BETA_MIN * BETA_MIN + 2.0 * BETA_D * log(1.0 + sigma * sigma)) - BETA_MIN) / BETA_D


def _integral(function: Callable[[Number], Sequence[Number]], start: Number, end: Number) -> list[Number]:
    """Integrals over sigma of several functions at once, by Gauss' rule in log sigma."""
    span, panels = log(end / start), 1
    while PANEL * panels < abs(span):
        panels += 1
    width, total = span / panels, None
    for panel in range(panels):
        for place, weight in gauss_legendre(12):
            sigma = start * exp(width * (panel + place))
            terms = [value * (width * weight * sigma) for value in function(sigma)]
            total = terms if total is None else [a + b for a, b in zip(total, terms, strict=True)]
    return total or []


def _products(t: Number, nodes: Sequence[Number]) -> list[Number]:
    """``t - t_0``, ``(t - t_0)(t - t_1)``, ..."""
    found = [t - nodes[0]]
    for node in nodes[1:-1]:
        found.append(found[-1] * (t - node))
    return found


@frozen
class DEIS(StepSampler):
    """DEIS (tAB): the noise prediction as a polynomial in the time of a VP process; one evaluation a step.

    Zhang and Chen 2022, arXiv:2204.13902, tAB-DEIS, with exact integrals, in VE coordinates, so the same
    on every path. Its order is the number of predictions used; the first steps have fewer. The process is
    the linear one that has level 0.002 at time 0.001 and 80 at time 1 (Karras et al. 2022,
    arXiv:2206.00364). History that reaches back to sigma = 1 on a flow path is dropped. The paper's rho-AB is
    `AdamsBashforth` in ``space="ratio"``.

    Attributes:
        max_order: Number of predictions used, 1 to 4.
        sigma_data: Standard deviation of the data, the unit of the process' levels.
    """

    max_order: int = field(default=3, validator=one_of(1, 2, 3, 4))
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
        """A DDIM step, and what the differences of the history add."""
        denoised = ctx.denoise(x, sigma)
        noise = ctx.eps(x, denoised, sigma)
        ctx.keep(noise=noise)
        x = ctx.to(x, denoised, sigma, sigma_next)
        past = ctx.finite_past
        if not past:
            return x
        levels = [ctx.path.ratio(level) / self.sigma_data for level in (sigma, *(p.sigma for p in past))]
        times = [vp_time(level) for level in levels]
        end = ctx.path.ratio(sigma_next) / self.sigma_data
        integrals = _integral(lambda level: _products(vp_time(level), times), levels[0], end)
        differences = divided_differences([noise, *(point.noise for point in past)], times)
        for difference, integral in zip(differences, integrals, strict=True):
            x = x + difference * (ctx.alpha(sigma_next) * self.sigma_data * integral)
        return x


def _ends(t: Number, nodes: Sequence[Number]) -> list[tuple[Number, Number]]:
    """``d sigma / d t`` times 1 and each of the products, and its derivative, at a time."""
    grown, rate = exp(BETA_D * t * t / 2.0 + BETA_MIN * t), BETA_D * t + BETA_MIN
    sigma = sqrt(grown - 1.0)
    slope = rate * grown / (2.0 * sigma)
    curve = (BETA_D + rate * rate) * grown / (2.0 * sigma) - slope * slope / sigma
    found = [(slope, curve)]
    for node in nodes[:-1]:
        value, change = found[-1]
        found.append((value * (t - node), change * (t - node) + value))
    return found


@frozen
class ComfyDEIS(StepSampler):
    """DEIS of order 3 with ComfyUI's integrals, for matching its numbers.

    Zhang and Chen 2022, arXiv:2204.13902. The integrals are sums of 10,000 points, both ends among them,
    times a 10,000th of the time. By Euler's and Maclaurin's formula (1738) that is ``1 - 1/10000`` of the
    integral with a 12th of the change of the integrand's slope times the squared distance of the points, and
    a 10,000th of the mean of the ends. The error, of 1e-5, stays at any number of steps. The levels of a flow
    path are read as VE levels.
    """

    order, memory = 3, 2

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What weights that do not sum to the step break, and a process whose levels have a unit."""
        why = "its integrals are sums of 10,000 points, as ComfyUI's, so its weights do not sum to the step"
        unit = "its VP process is for data of standard deviation 1; DEIS has a parameter for it"
        laws = ("constant_denoiser_is_exact", "shift_equivariance", "exact_in_many_steps")
        return {**dict.fromkeys(laws, why), "scale_equivariance": unit}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An Euler step, or a sum over the history."""
        slope = (x - ctx.denoise(x, sigma)) / sigma
        ctx.keep(slope=slope)
        if not ctx.past:
            return x + slope * (sigma_next - sigma)
        times = [vp_time(level) for level in (sigma, *(point.sigma for point in ctx.past))]
        end = vp_time(sigma_next)
        width = (end - times[0]) / POINTS
        integrals = _integral(lambda level: [1.0, *_products(vp_time(level), times)], sigma, sigma_next)
        values = [slope, *divided_differences([slope, *(point.slope for point in ctx.past)], times)]
        ends = zip(_ends(times[0], times), _ends(end, times), strict=True)
        for value, integral, (a, b) in zip(values, integrals, ends, strict=True):
            change = (b[1] - a[1]) * width * width / 12.0
            x = x + value * ((integral + change) * (1.0 - 1.0 / POINTS) + (a[0] + b[0]) * width / 2.0)
        return x
