"""Implicit methods: diagonally implicit ones, and the families of Gauss, Radau and Lobatto."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from ..tableau import DIGITS, Row, Tableau, checked, root

Rows = tuple[Row, ...]
_HALF = Fraction(1, 2)
_SQRT2 = root(2)


def _diagonal(name: str, order: int, rows: Sequence[Sequence[Any]], weights: Any, **told: Any) -> Tableau:
    """A diagonally implicit method; rows end at the diagonal."""
    full = [[*row, *[0] * (len(rows) - len(row))] for row in rows]
    return checked(name, order, full, weights, **told)


def integrals(nodes: Row, end: Fraction) -> Row:
    """Integrals from 0 to `end` of the Lagrange polynomials on `nodes`, exactly."""
    return tuple(
        sum((c * end ** (k + 1) / (k + 1) for k, c in enumerate(p)), Fraction(0)) for p in _lagrange(nodes)
    )


@cache
def _lagrange(nodes: Row) -> list[list[Fraction]]:
    """Coefficients of ``u^0, u^1, ...`` of each Lagrange polynomial."""
    found = []
    for own in nodes:
        product = [Fraction(1)]
        for other in nodes:
            if other != own:
                shifted = zip([Fraction(0), *product], [*product, Fraction(0)], strict=True)
                product = [(s - other * c) / (own - other) for s, c in shifted]
        found.append(product)
    return found


def collocation(nodes: Row) -> tuple[Rows, Row]:
    """Rows and weights of the method whose polynomial meets the equation at the nodes."""
    return tuple(integrals(nodes, node) for node in nodes), integrals(nodes, Fraction(1))


def adjoint(rows: Rows, weights: Row) -> Rows:
    """The rows â with ``b_i â_ij + b_j a_ji = b_i b_j``: collocation becomes Radau IA, or Lobatto IIIB."""
    places = range(len(weights))
    return tuple(tuple(weights[j] * (1 - rows[j][i] / weights[i]) for j in places) for i in places)


def _lobatto_c(nodes: Row, weights: Row) -> Rows:
    """Lobatto IIIC: the first column is b_1, the others are exact for polynomials of degree s - 2."""
    first, rest = weights[0], nodes[1:]
    starts = [p[0] for p in _lagrange(rest)]
    return tuple(
        (first, *(i - first * at for i, at in zip(integrals(rest, node), starts, strict=True)))
        for node in nodes
    )


def _family(title: str, order: int, rows: Rows, weights: Row, nodes: Row, who: str, *aliases: str) -> Tableau:
    """A member of a family, named after it and its order."""
    return checked(
        title.lower().replace(" ", "_") + str(order), order, rows, weights, nodes=nodes, reference=who,
        summary=f"{title} of order {order}, {len(nodes)} stages", aliases=aliases,
    )  # fmt: skip


def _collocations() -> list[Tableau]:
    """Gauss, Radau and Lobatto, from the zeros of their polynomials on [0, 1]."""
    found = []
    inner, outer = ((525 - 70 * root(30)), (525 + 70 * root(30)))
    for positive in ((root(3) / 3,), (0, root(15) / 5), (root(inner) / 35, root(outer) / 35)):
        nodes = _symmetric(positive)
        order = 2 * len(nodes)
        found.append(_family("Gauss", order, *collocation(nodes), nodes, "Butcher 1964", f"gl{order}"))
    for left in ((Fraction(0), Fraction(2, 3)), (Fraction(0), (6 - root(6)) / 10, (6 + root(6)) / 10)):
        rows, weights = collocation(left)
        order = 2 * len(left) - 1
        found.append(_family("Radau IA", order, adjoint(rows, weights), weights, left, "Ehle 1969"))
        right = tuple(1 - node for node in reversed(left))
        found.append(_family("Radau IIA", order, *collocation(right), right, "Ehle 1969; Axelsson 1969"))
    for positive in ((Fraction(1),), (0, Fraction(1)), (root(5) / 5, Fraction(1))):
        nodes = _symmetric(positive)
        order = 2 * len(nodes) - 2
        rows, weights = collocation(nodes)
        kinds = {"IIIA": rows, "IIIB": adjoint(rows, weights), "IIIC": _lobatto_c(nodes, weights)}
        for kind, table in kinds.items():
            if order > 2 or kind == "IIIC":  # IIIA is the trapezoid; the rows of IIIB do not sum to its nodes
                who = "Chipman 1971" if kind == "IIIC" else "Ehle 1969"
                found.append(_family(f"Lobatto {kind}", order, table, weights, nodes, who))
    return found


def _symmetric(positive: Sequence[Fraction | int]) -> Row:
    """Nodes on [0, 1] from those of at least 0 on [-1, 1]."""
    both = sorted({Fraction(sign * place) for place in positive for sign in (-1, 1)})
    return tuple((1 + place) / 2 for place in both)


def _alexander() -> Fraction:
    """The zero in ]1/6, 1/2[ of ``x^3 - 3 x^2 + 3 x / 2 - 1/6``, by Newton's method."""
    x = Fraction(436, 1000)
    for _ in range(7):
        x -= (x**3 - 3 * x * x + 3 * x / 2 - Fraction(1, 6)) / (3 * x * x - 6 * x + Fraction(3, 2))
        x = Fraction(round(x * 10**DIGITS), 10**DIGITS)
    return x


_GAMMA, _CROUZEIX, _ALEXANDER = 1 - _SQRT2 / 2, (3 + root(3)) / 6, _alexander()
_ALEXANDER_ENDS = (
    -(6 * _ALEXANDER**2 - 16 * _ALEXANDER + 1) / 4, (6 * _ALEXANDER**2 - 20 * _ALEXANDER + 5) / 4, _ALEXANDER,
)  # fmt: skip
_BDF = (_SQRT2 / 4, _SQRT2 / 4, _GAMMA)

IMPLICIT = (
    _diagonal(
        "backward_euler", 1, ((1,),), (1,), reference="Cauchy 1824", summary="Euler's implicit method",
        aliases=("implicit_euler", "radau_iia1"),
    ),
    _diagonal(
        "implicit_midpoint", 2, ((_HALF,),), (1,), reference="Butcher 1964", summary="implicit midpoint rule",
        aliases=("gauss2", "gl2"),
    ),
    _diagonal(
        "trapezoid", 2, ((0,), (_HALF, _HALF)), (_HALF, _HALF), reference="Crank & Nicolson 1947",
        summary="implicit trapezoidal rule", aliases=("crank_nicolson", "lobatto_iiia2"),
    ),
    _diagonal(
        "qin_zhang2", 2, (("1/4",), ("1/2", "1/4")), (_HALF, _HALF), reference="Qin & Zhang 1992",
        summary="diagonally implicit and symplectic",
    ),
    _diagonal(
        "sdirk2", 2, ((_GAMMA,), (1 - _GAMMA, _GAMMA)), (1 - _GAMMA, _GAMMA), reference="Alexander 1977",
        summary="diagonally implicit, 2 stages",
    ),
    _diagonal(
        "tr_bdf2", 2, ((0,), (_GAMMA, _GAMMA), _BDF), _BDF,
        embedded=((1 - _BDF[0]) / 3, (1 + 3 * _BDF[0]) / 3, _GAMMA / 3), embedded_order=3,
        reference="Bank et al. 1985; Hosea & Shampine 1996",
        summary="trapezoidal rule, then BDF2; a pair 2(3)",
    ),
    _diagonal(
        "crouzeix3", 3, ((_CROUZEIX,), (1 - 2 * _CROUZEIX, _CROUZEIX)), (_HALF, _HALF),
        reference="Crouzeix 1975; Norsett 1974", summary="diagonally implicit, 2 stages of order 3",
    ),
    _diagonal(
        "sdirk3", 3, ((_ALEXANDER,), ((1 - _ALEXANDER) / 2, _ALEXANDER), _ALEXANDER_ENDS), _ALEXANDER_ENDS,
        reference="Alexander 1977", summary="diagonally implicit, 3 stages",
    ),
    _diagonal(
        "sdirk4", 4,
        (
            ("1/4",), ("1/2", "1/4"), ("17/50", "-1/25", "1/4"), ("371/1360", "-137/2720", "15/544", "1/4"),
            ("25/24", "-49/48", "125/16", "-85/12", "1/4"),
        ),
        "25/24 -49/48 125/16 -85/12 1/4", embedded="59/48 -17/96 225/32 -85/12 0", embedded_order=3,
        reference="Hairer & Wanner 1991", summary="diagonally implicit, 5 stages, a pair 4(3)",
    ),
    *_collocations(),
)  # fmt: skip
