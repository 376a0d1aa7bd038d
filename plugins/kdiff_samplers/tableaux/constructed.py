"""Explicit methods made by their construction: families of two stages, extrapolation, strong stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..tableau import Row, Tableau, checked

Sum = dict[int, Fraction]  # a state: the weight of each slope in it


def two_stage(alpha: Any, name: str = "two_stage", **told: Any) -> Tableau:
    """The method of order 2 whose second stage is at `alpha`.

    With 1/2 it is the midpoint rule, with 2/3 Ralston's, with 1 Heun's method.

    Args:
        alpha: Place of the stage, in ]0, 1].
        name: Name of the tableau.
        **told: What `checked` takes beside.

    Raises:
        ParameterError: A place outside the step.
    """
    half = 1 / (2 * Fraction(alpha))
    return checked(name, 2, ((), (alpha,)), (1 - half, half), **told)


def extrapolated(
    name: str, steps: Sequence[int], midpoint: bool, reference: str, summary: str, aliases: Sequence[str] = ()
) -> Tableau:
    """Extrapolation to step 0 of Euler's method or the explicit midpoint rule; without the last a pair.

    Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", section II.9: each number of
    steps wins an order with Euler's method, and two with the midpoint rule (Gragg 1965, without smoothing).

    Args:
        name: Its name.
        steps: Numbers of steps, rising, that the results are extrapolated from; even for the midpoint rule.
        midpoint: Whether it is the midpoint rule.
        reference: Where it is from.
        summary: What it is.
        aliases: Other names.
    """
    rows, ends, power = [Sum()], [], 2 if midpoint else 1
    for n in steps:
        before, state = Sum(), {0: Fraction(1, n)}
        for _ in range(n - 1):
            rows.append(state)
            stride = {len(rows) - 1: Fraction(power, n)}
            before, state = state, _sum((1, before if midpoint else state), (1, stride))
        ends.append(state)
    weights, fewer = (_extrapolation(steps[:k], power) for k in (len(steps), len(steps) - 1))
    order = power * len(steps)
    end, embedded = (_sum(*zip(w, ends, strict=False)) for w in (weights, fewer))
    return checked(
        name, order, [_row(row, i) for i, row in enumerate(rows)], _row(end, len(rows)),
        embedded=_row(embedded, len(rows)), embedded_order=order - power, reference=reference,
        summary=summary, aliases=aliases,
    )  # fmt: skip


def ssp2(stages: int) -> Tableau:
    """The strong stability preserving method of order 2 with the most stable `stages`.

    Spiteri and Ruuth 2002: Euler steps of 1 / (stages - 1), then the mean of their slopes.
    """
    step = Fraction(1, stages - 1)
    return checked(
        f"ssprk{stages}2", 2, [[step] * i for i in range(stages)], [Fraction(1, stages)] * stages,
        reference="Spiteri & Ruuth 2002", summary=f"strong stability preserving, {stages} stages",
    )  # fmt: skip


def ssp3(n: int) -> Tableau:
    """The strong stability preserving method of order 3 with ``n^2`` stages.

    Ketcheson 2008, "Highly efficient strong stability preserving Runge-Kutta methods with low-storage
    implementations": Euler steps of ``1 / (n^2 - n)``, with one mean of two states on the way.
    """
    rows: list[Sum] = []
    state, saved = Sum(), Sum()
    for i in range(1, n * n + 1):
        rows.append(state)
        state = _sum((1, state), (1, {i - 1: Fraction(1, n * n - n)}))
        if i == (n - 1) * (n - 2) // 2:
            saved = state
        if i == n * (n + 1) // 2:
            weight = Fraction(n, 2 * n - 1)
            state = _sum((weight, saved), (1 - weight, state))
    return checked(
        f"ssprk{n * n}3", 3, [_row(row, i) for i, row in enumerate(rows)], _row(state, n * n),
        reference="Ketcheson 2008", summary=f"strong stability preserving, {n * n} stages",
    )  # fmt: skip


def _ssp104() -> Tableau:
    """Ketcheson 2008: ten Euler steps of 1/6, with two means of states on the way."""
    rows: list[Sum] = []
    state, saved = Sum(), Sum()
    for i in range(9):
        rows.append(state)
        state = _sum((1, state), (1, {i: Fraction(1, 6)}))
        if i == 4:
            saved = _sum((Fraction(9, 25), state))
            state = _sum((15, saved), (-5, state))
    rows.append(state)
    end = _sum((1, saved), (Fraction(3, 5), state), (1, {9: Fraction(1, 10)}))
    return checked(
        "ssprk104", 4, [_row(row, i) for i, row in enumerate(rows)], _row(end, 10),
        reference="Ketcheson 2008", summary="strong stability preserving, 10 stages",
    )  # fmt: skip


def _sum(*terms: tuple[Fraction | int, Sum]) -> Sum:
    total = Sum()
    for factor, state in terms:
        for i, weight in state.items():
            total[i] = total.get(i, Fraction(0)) + factor * weight
    return total


def _row(state: Sum, length: int) -> Row:
    return tuple(state.get(i, Fraction(0)) for i in range(length))


def _extrapolation(steps: Sequence[int], power: int) -> Row:
    """Weights of the results in the value at step 0 of the polynomial in ``h^power`` through them."""
    raised = [Fraction(n**power) for n in steps]
    return tuple(
        math.prod((r / (r - other) for other in raised if other != r), start=Fraction(1)) for r in raised
    )


_EULER, _GRAGG = "Hairer, Norsett & Wanner 1993", "Gragg 1965; Bulirsch & Stoer 1966"
CONSTRUCTED = (
    two_stage("1/2", "midpoint", reference="Runge 1895", summary="explicit midpoint rule"),
    two_stage(
        1, "heun2", reference="Heun 1900", embedded="1 0", embedded_order=1,
        summary="explicit trapezoidal rule with Euler's method, a pair 2(1)",
        aliases=("heun_euler", "ssprk22"),
    ),
    two_stage(
        "2/3", "ralston2", reference="Ralston 1962", summary="two stages, the least bound of the error"
    ),
    ssp2(3),
    ssp2(4),
    ssp3(2),
    ssp3(3),
    _ssp104(),
    *(
        extrapolated(
            f"extrapolated_euler{k}", range(1, k + 1), midpoint=False, reference=_EULER,
            summary=f"Euler's method, extrapolated to order {k}",
        )
        for k in (3, 4, 5)
    ),
    *(
        extrapolated(
            f"gragg{2 * k}", range(2, 2 * k + 1, 2), midpoint=True, reference=_GRAGG,
            summary=f"the midpoint rule, extrapolated to order {2 * k}", aliases=(f"gbs{2 * k}",),
        )
        for k in (2, 3, 4)
    ),
)  # fmt: skip
