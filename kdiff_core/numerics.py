"""Scalar functions that a step uses, on floats, torch scalars and high-precision numbers alike.

A step takes `exp`, `log`, ... from here, never from `math`, so that one definition serves plans (floats),
tuning by gradient (torch scalars) and checks in high precision (mpmath). Limits are taken instead of
raised: ``log(0)`` is ``-inf``, ``exp`` overflows to ``inf``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import repeat
from typing import Any, TypeVar

Number = Any  # float, a torch scalar, a high-precision number, or a vector of one level for each sample
F = TypeVar("F", bound=Callable[..., Any])


def elementwise(function: F) -> F:
    """Let a function of numbers take vectors too: host tensors ``(B,)``, one number for each sample.

    It is applied to one float after the other. A kernel would be faster, but its bits may depend on the place
    in the vector, and so a sample on its neighbours.
    """

    @wraps(function)
    def apply(*args: Any) -> Any:
        for vector in args:
            if getattr(vector, "ndim", 0):
                columns = [a.tolist() if getattr(a, "ndim", 0) else repeat(a) for a in args]
                return vector.new_tensor(list(map(function, *columns)))
        return function(*args)

    return apply  # type: ignore[return-value]


def _call(name: str, x: Number) -> Number:
    """Apply a function by name to a number that is not a float."""
    if hasattr(x, "context"):  # mpmath
        return getattr(x.context, name)(x)
    return getattr(x, name)()


@elementwise
def exp(x: Number) -> Number:
    """``e ** x``; ``inf`` on overflow."""
    if isinstance(x, (float, int)):
        try:
            return math.exp(x)
        except OverflowError:
            return math.inf
    return _call("exp", x)


@elementwise
def expm1(x: Number) -> Number:
    """``e ** x - 1`` without cancellation near 0; ``inf`` on overflow."""
    if isinstance(x, (float, int)):
        try:
            return math.expm1(x)
        except OverflowError:
            return math.inf
    return _call("expm1", x)


@elementwise
def log(x: Number) -> Number:
    """Natural logarithm; ``-inf`` at 0."""
    if isinstance(x, (float, int)):
        return math.log(x) if x != 0 else -math.inf
    return _call("log", x)


@elementwise
def sqrt(x: Number) -> Number:
    """Square root; 0 for a negative `x`, which here is always 0 but for rounding."""
    if isinstance(x, (float, int)):
        return math.sqrt(x) if x > 0 else 0.0
    return _call("sqrt", x) if x > 0 else x * 0


@elementwise
def phi(k: int, h: Number) -> Number:
    """The function phi_k of exponential integrators: ``phi_0 = e^h``, ``phi_k = (phi_{k-1} - 1/(k-1)!) / h``.

    Hochbruck and Ostermann 2010, "Exponential integrators", eq. 2.10. Near 0, where the recurrence
    cancels, the series ``sum_j h^j / (j + k)!`` is used.

    Args:
        k: Index, 0 or more.
        h: Where; for steps in log-SNR usually ``-h`` of the step.

    Returns:
        ``phi_k(h)``; its limit at ``h = -inf`` and at 0.
    """
    if k == 0:
        return exp(h)
    if -1.0 < h < 1.0:
        term = total = 1.0 / math.factorial(k) + h * 0
        for j in range(1, 22):
            term = term * h / (j + k)
            total = total + term
        return total
    if k == 1:
        return expm1(h) / h
    return (phi(k - 1, h) - 1.0 / math.factorial(k - 1)) / h


@lru_cache(maxsize=32)
def gauss_legendre(n: int) -> tuple[tuple[float, float], ...]:
    """Places in [0, 1] and weights of the Gauss-Legendre rule, exact for polynomials of degree ``2 n - 1``.

    Args:
        n: Number of places.
    """
    found = []
    for i in range(n):
        u = math.cos(math.pi * (i + 0.75) / (n + 0.5))
        for _ in range(8):  # Newton's method on the Legendre polynomial, by its recurrence
            before, value = 1.0, u
            for k in range(2, n + 1):
                before, value = value, ((2 * k - 1) * u * value - (k - 1) * before) / k
            slope = n * (before - u * value) / (1.0 - u * u)
            u -= value / slope
        found.append((0.5 - 0.5 * u, 1.0 / ((1.0 - u * u) * slope * slope)))
    return tuple(found)


def lagrange_integrals(nodes: Sequence[Number], start: Number, end: Number) -> list[Number]:
    """Integrals from `start` to `end` of the Lagrange polynomials on `nodes`.

    They are the weights of an Adams-Bashforth step on uneven nodes, exact to rounding.

    Args:
        nodes: Distinct points, as many as the order of the method.
        start: Lower limit.
        end: Upper limit.

    Returns:
        One weight for each node; they sum to ``end - start``.
    """
    width = end - start
    at = [(node - start) / width for node in nodes]
    return lagrange_weights(at, [width / (power + 1) for power in range(len(at))])


def lagrange_weights(nodes: Sequence[Number], moments: Sequence[Number]) -> list[Number]:
    """Integrals of the Lagrange polynomials on `nodes`, from those of the powers.

    Args:
        nodes: Distinct points.
        moments: Integrals of ``u^0``, ``u^1``, ..., as many as nodes.

    Returns:
        One weight for each node.
    """
    weights = []
    for j, own in enumerate(nodes):
        coefficients: list[Number] = [1.0]  # of u^0, u^1, ...
        for i, other in enumerate(nodes):
            if i != j:
                scale = 1.0 / (own - other)
                shifted = zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
                coefficients = [scale * (s - other * c) for s, c in shifted]
        weights.append(sum(c * moment for c, moment in zip(coefficients, moments, strict=True)))
    return weights
