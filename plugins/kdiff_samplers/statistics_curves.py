"""Coefficients of a model as functions of log-SNR, and the integrals that DPM-Solver-v3 takes over a step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from kdiff_core.numerics import Number, exp, gauss_legendre, lagrange_integrals

# Panels of a step: between any two neighbouring lambdas of the table, and at most this wide in log-SNR.
PANEL = 0.5
POINTS = 6


class Curve(NamedTuple):
    """A cubic between any two knots through values and slopes, constant outside; the integral is exact.

    Attributes:
        knots: Rising places.
        values: A number, or a tensor, at each.
        slopes: The derivative at each.
        sums: The integral from the first knot to each.
    """

    knots: Sequence[float]
    values: Sequence[Any]
    slopes: Sequence[Any]
    sums: Sequence[Any]

    def at(self, place: Number) -> Any:
        """The value at a place."""
        return self._evaluate(place)[0]

    def integral(self, place: Number) -> Any:
        """The integral from the first knot to a place."""
        return self._evaluate(place)[1]

    def _evaluate(self, place: Number) -> tuple[Any, Any]:
        k = bisect_right(self.knots, place) - 1
        if k < 0 or k == len(self.knots) - 1:
            end = max(k, 0)
            return self.values[end], self.sums[end] + self.values[end] * (place - self.knots[end])
        width = self.knots[k + 1] - self.knots[k]
        u, rise = (place - self.knots[k]) / width, self.values[k + 1] - self.values[k]
        c0, c1, last = self.values[k], self.slopes[k] * width, self.slopes[k + 1] * width
        c2, c3 = rise * 3.0 - c1 * 2.0 - last, c1 + last - rise * 2.0
        value = c0 + (c1 + (c2 + c3 * u) * u) * u
        area = (c0 + (c1 / 2.0 + (c2 / 3.0 + c3 * (u / 4.0)) * u) * u) * (u * width)
        return value, self.sums[k] + area


@lru_cache(maxsize=1)
def _partial() -> list[list[Number]]:
    """Weights of the Gauss points for the integral from 0 to each of them."""
    nodes = [place for place, _ in gauss_legendre(POINTS)]
    return [lagrange_integrals(nodes, 0.0, node) for node in nodes]


class Curves(NamedTuple):
    """The coefficients ``l``, ``s`` and ``b``; see `ModelStatistics`.

    Attributes:
        linear: ``l``.
        scaling: ``s``.
        bias: ``b``.
        has_bias: Whether any bias is not 0.
    """

    linear: Curve
    scaling: Curve
    bias: Curve
    has_bias: bool

    def integrals(self, start: Number, end: Number, count: int) -> tuple[list[Any], Any, Any]:
        """Integrals over a step in log-SNR under its weight ``exp(int_start^u s - int_u^end l)``.

        Gauss' rule with 6 points on panels of at most 0.5, none of which crosses a lambda of the table: to
        1e-11 of the integral where ``|l + s|`` stays below 5.

        Args:
            start: Log-SNR of the base, in which powers are taken.
            end: Where to integrate to; may be below `start`.
            count: Number of powers.

        Returns:
            The integrals of ``(u - start)^0``, ``^1``, ...; that of ``B(u)``, the integral from `start` to u
            of ``exp(-int_start^r s) b(r)``; and ``B(end)``. The last two are 0 without a bias.
        """
        linear, scaling, bias, _ = self
        moments: list[Any] = [0.0] * count
        of_bias, so_far = 0.0, 0.0
        l_end, s_start = linear.integral(end), scaling.integral(start)
        for left, width in self._panels(start, end):
            places = [left + width * place for place, _ in gauss_legendre(POINTS)]
            grown = [scaling.integral(place) - s_start for place in places]
            rates = (
                [bias.at(p) * exp(-g) for p, g in zip(places, grown, strict=True)] if self.has_bias else []
            )
            for i, (_, share) in enumerate(gauss_legendre(POINTS)):
                weight = exp(grown[i] + linear.integral(places[i]) - l_end) * (width * share)
                for power in range(count):
                    moments[power] = moments[power] + weight * (places[i] - start) ** power
                if rates:
                    inner = sum(part * rate for part, rate in zip(_partial()[i], rates, strict=True))
                    of_bias = of_bias + weight * (so_far + inner * width)
            if rates:
                whole = sum(share * r for (_, share), r in zip(gauss_legendre(POINTS), rates, strict=True))
                so_far = so_far + whole * width
        return moments, of_bias, so_far

    def _panels(self, start: Number, end: Number) -> list[tuple[Number, Number]]:
        """Left ends and widths, negative where `end` is below `start`."""
        low, high = (start, end) if start < end else (end, start)
        inner = [knot for knot in self.linear.knots if low < knot < high]
        found = []
        for left, right in pairwise([low, *inner, high]):
            parts = 1 + int((right - left) / PANEL)
            width = (right - left) / parts
            found += [(left + width * part, width) for part in range(parts)]
        return found if start < end else [(left + width, -width) for left, width in reversed(found)]
