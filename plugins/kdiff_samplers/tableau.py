"""Runge-Kutta methods as data: a validated tableau of exact numbers. The tables are in `tableaux`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from kdiff_core.errors import ParameterError

DIGITS = 60  # to which an irrational coefficient is known
ROUNDING = Fraction(1, 10**12)  # allowed to row sums of coefficients that were given as floats

Row = tuple[Fraction, ...]


class Tableau(NamedTuple):
    """A Runge-Kutta method: Butcher's coefficients as exact fractions, irrational ones to 60 digits.

    Make one with `checked`, which takes any numbers. (No attrs class: those cannot be made inside a
    compiled step.)

    Attributes:
        name: Its name.
        order: Its order.
        nodes: c, places of the stages as parts of the step, in [0, 1].
        rows: a, weights of the slopes in each stage. Explicit: row i has i entries; implicit: each row has
            as many as there are stages.
        weights: b, weights of the slopes in the step's end.
        embedded: b-hat, weights of a second end that estimates the error of the first, or None.
        embedded_order: Order of the second end.
        reference: Where it is from.
        summary: What it is, in a few words.
        aliases: Other names.
    """

    name: str
    order: int
    nodes: Row
    rows: tuple[Row, ...]
    weights: Row
    embedded: Row | None = None
    embedded_order: int = 0
    reference: str = ""
    summary: str = ""
    aliases: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return what it is; its coefficients fill a page."""
        return f"<Tableau {self.name}: order {self.order}, {self.stages} stages>"

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.nodes)

    @property
    def explicit(self) -> bool:
        """Whether each stage reads only those before it."""
        return all(not any(row[i:]) for i, row in enumerate(self.rows))

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is evaluated at the step's end, where the next step begins."""
        last = self.rows[-1]
        padded = (*last, *[Fraction(0)] * (self.stages - len(last)))
        return self.stages > 1 and self.nodes[-1] == 1 and padded == self.weights


def swept(tableau: Tableau, sweeps: int) -> Tableau:
    """The explicit method that an implicit one becomes where its stages are found by fixed-point sweeps.

    All slopes begin as that at the step's start; each sweep finds them anew, one after the other, from the
    newest of the others, and wins an order (Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential
    Equations I", section II.7; van der Houwen and Sommeijer 1990). A stage that is the start itself is
    evaluated once, and one that nothing reads not at all.

    Args:
        tableau: The method; an explicit one is returned as it is.
        sweeps: Number of sweeps, at least 1.
    """
    if tableau.explicit:
        return tableau
    nodes, rows, newest = [Fraction(0)], [dict[int, Fraction]()], [0] * tableau.stages
    for _ in range(sweeps):
        for i, row in enumerate(tableau.rows):
            if any(row):
                rows.append(_gathered(row, newest))
                nodes.append(tableau.nodes[i])
                newest[i] = len(rows) - 1
    places = range(len(rows))
    return pruned(
        tableau._replace(
            order=min(tableau.order, sweeps + 1),
            nodes=tuple(nodes),
            rows=tuple(_row(row, range(i)) for i, row in enumerate(rows)),
            weights=_row(_gathered(tableau.weights, newest), places),
            embedded=tableau.embedded and _row(_gathered(tableau.embedded, newest), places),
            embedded_order=min(tableau.embedded_order, sweeps + 1),
        )
    )


def pruned(tableau: Tableau) -> Tableau:
    """The same explicit method without the stages that nothing reads.

    Args:
        tableau: The method; without `embedded`, stages that serve only that are left out.
    """
    kept: list[int] = []
    for i in reversed(range(tableau.stages)):
        readers = (tableau.weights, tableau.embedded or (), *(tableau.rows[k] for k in kept))
        if any(row[i] for row in readers if row):
            kept.insert(0, i)
    return tableau._replace(
        nodes=tuple(tableau.nodes[i] for i in kept),
        rows=tuple(tuple(tableau.rows[i][k] for k in kept if k < i) for i in kept),
        weights=tuple(tableau.weights[k] for k in kept),
        embedded=tableau.embedded and tuple(tableau.embedded[k] for k in kept),
    )


def _row(weights: Mapping[int, Fraction], places: Iterable[int]) -> Row:
    return tuple(weights.get(k, Fraction(0)) for k in places)


def _gathered(row: Row, newest: Sequence[int]) -> dict[int, Fraction]:
    """The weights of a row by the newest slope of each stage."""
    found: dict[int, Fraction] = {}
    for weight, at in zip(row, newest, strict=True):
        if weight:
            found[at] = found.get(at, Fraction(0)) + weight
    return found


def root(number: Fraction | int) -> Fraction:
    """The square root of a number of at least 0, to 60 digits."""
    scale = 10**DIGITS
    return Fraction(math.isqrt(int(Fraction(number) * scale**2)), scale)


def checked(
    name: str,
    order: int,
    rows: str | Iterable[Iterable[Any]],
    weights: str | Iterable[Any],
    *,
    nodes: str | Iterable[Any] | None = None,
    embedded: str | Iterable[Any] | None = None,
    embedded_order: int = 0,
    reference: str = "",
    summary: str = "",
    aliases: Sequence[str] = (),
) -> Tableau:
    """Return the tableau of some coefficients: fractions, strings such as ``"1/3"``, whole numbers or floats.

    They may also be written in one string, the rows apart by bars: ``"| 1/2 | -1 2"``.

    Args:
        name: Its name.
        order: Its order. It is believed: `tests` prove those of the tables.
        rows: a; row i has i entries (explicit), or as many as there are stages.
        weights: b; they sum to 1.
        nodes: c, in [0, 1]. Default: the sums of the rows.
        embedded: b-hat; they sum to 1 too.
        embedded_order: Order of b-hat.
        reference: Where it is from.
        summary: What it is.
        aliases: Other names.

    Raises:
        ParameterError: Ragged rows, sums that are not right, a node outside [0, 1], or no order.
    """
    given = rows.split("|") if isinstance(rows, str) else rows
    a = tuple(_exact(name, f"row {i}", row) for i, row in enumerate(given))
    b = _exact(name, "weights", weights)
    c = tuple(_node(sum(row, Fraction(0))) for row in a) if nodes is None else _exact(name, "nodes", nodes)
    second = None if embedded is None else _exact(name, "embedded", embedded)
    tableau = Tableau(name, order, c, a, b, second, embedded_order, reference, summary, tuple(aliases))
    return valid(tableau)


def valid(tableau: Tableau) -> Tableau:
    """Return a tableau that is one.

    Raises:
        ParameterError: What `checked` refuses.
    """
    _check_shape(tableau)
    _check_sums(tableau)
    return tableau


def _exact(name: str, what: str, numbers: str | Iterable[Any]) -> Row:
    try:
        numbers = numbers.split() if isinstance(numbers, str) else numbers
        return tuple(Fraction(number) for number in numbers)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise ParameterError(f"tableau {name!r}, {what}: {error}; coefficients are finite numbers") from error


def _node(total: Fraction) -> Fraction:
    """The sum of a row; where it is the step's start or end but for rounding, exactly that."""
    return Fraction(round(total)) if abs(total - round(total)) < ROUNDING else total


def _check_shape(tableau: Tableau) -> None:
    name, s = tableau.name, tableau.stages
    if not s or len(tableau.rows) != s or len(tableau.weights) != s:
        raise ParameterError(
            f"tableau {name!r}: {s} nodes, {len(tableau.rows)} rows and {len(tableau.weights)} weights; "
            "a method has one of each for each stage"
        )
    lengths = [len(row) for row in tableau.rows]
    if lengths not in (list(range(s)), [s] * s):
        raise ParameterError(
            f"tableau {name!r}: rows of {lengths} entries; an explicit method of {s} stages has rows of "
            f"{list(range(s))}, an implicit one of {[s] * s}"
        )
    if tableau.embedded is not None and len(tableau.embedded) != s:
        raise ParameterError(f"tableau {name!r}: {len(tableau.embedded)} embedded weights for {s} stages")
    if tableau.order < 1 or (tableau.embedded is not None) != (tableau.embedded_order >= 1):
        raise ParameterError(
            f"tableau {name!r}: orders {tableau.order} and {tableau.embedded_order}; an order is at least 1, "
            "that of embedded weights is given where they are"
        )


def _check_sums(tableau: Tableau) -> None:
    for i, (row, node) in enumerate(zip(tableau.rows, tableau.nodes, strict=True)):
        if abs(sum(row, -node)) > ROUNDING:
            raise ParameterError(
                f"tableau {tableau.name!r}: row {i} sums to {float(sum(row)):.6g}; it must sum to its node, "
                f"{float(node):.6g}"
            )
        if not 0 <= node <= 1:
            raise ParameterError(
                f"tableau {tableau.name!r}: node {i} is {float(node):.6g}; a stage lies inside its step, in "
                "[0, 1]"
            )
    for what, weights in (("weights", tableau.weights), ("embedded weights", tableau.embedded)):
        if weights is not None and abs(sum(weights, Fraction(-1))) > ROUNDING:
            raise ParameterError(
                f"tableau {tableau.name!r}: the {what} sum to {float(sum(weights)):.6g}; they must sum to 1"
            )
