"""Runge-Kutta methods: order conditions over all rooted trees, sweeps, and what a step integrates."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import few

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_core.plans import Evaluate
from kdiff_core.testing import Mixture
from kdiff_core.testing.measure import slope
from kdiff_core.testing.problems import random_state
from kdiff_core.testing.teacher import one_step_error
from kdiff_samplers.runge_kutta import SPACES, RungeKutta, explicit_form, find_tableau
from kdiff_samplers.tableau import Tableau, checked, pruned, root, swept
from kdiff_samplers.tableaux import TABLEAUX, two_stage

IMPLICIT = [name for name, tableau in TABLEAUX.items() if not tableau.explicit]
PAIRS = [name for name, tableau in TABLEAUX.items() if tableau.embedded]
every = pytest.mark.parametrize("name", TABLEAUX)
paths = pytest.mark.parametrize("path", ["ve", "flow"])
PLACES = 50  # decimal places in which sums over trees are taken
# Coefficients published as decimals meet the conditions to so many places; irrational ones to 40 and more.
DECIMALS = {"dop853": 27}


@cache
def trees(size):
    """The rooted trees of a size, each the sorted tuple of the trees that hang on its root."""

    def forests(total, largest):
        if total == 0:
            yield ()
        for first in range(min(total, largest), 0, -1):
            for tree in trees(first):
                for rest in forests(total - first, first):
                    yield tuple(sorted((tree, *rest)))

    return tuple(sorted(set(forests(size - 1, size - 1))))


def nodes_of(tree):
    """Number of nodes of a tree."""
    return 1 + sum(nodes_of(child) for child in tree)


def density(tree):
    """Butcher's gamma: the product over all nodes of the sizes of what hangs there."""
    product = nodes_of(tree)
    for child in tree:
        product *= density(child)
    return product


def elementary_weights(rows, weights, size):
    """Butcher's Phi of each tree of a size, in fixed point of `PLACES` places."""
    one = 10**PLACES

    def fixed(value):
        return round(value * one)

    matrix = [[(j, fixed(a)) for j, a in enumerate(row) if a] for row in rows]

    @cache
    def inner(tree):
        product = [one] * len(matrix)
        for child in tree:
            below = inner(child)
            sums = [sum(a * below[j] for j, a in row) // one for row in matrix]
            product = [p * s // one for p, s in zip(product, sums, strict=True)]
        return product

    b = [fixed(w) for w in weights]
    return [sum(w * p for w, p in zip(b, inner(t), strict=True)) // one for t in trees(size)]


def defect(rows, weights, size):
    """Largest miss of the conditions of one order."""
    found = elementary_weights(rows, weights, size)
    return max(
        abs(Fraction(phi, 10**PLACES) - Fraction(1, density(t)))
        for phi, t in zip(found, trees(size), strict=True)
    )


def proven_order(tableau, weights=None, places=40, most=9):
    """The largest order up to which all conditions hold."""
    weights = weights or tableau.weights
    order = 0
    while order < most and defect(tableau.rows, weights, order + 1) < Fraction(1, 10**places):
        order += 1
    return order


def test_numbers_of_trees():
    """There are 1, 1, 2, 4, 9, 20, 48, 115, 286 rooted trees of 1 to 9 nodes, and 1/gamma is exp's series."""
    assert [len(trees(n)) for n in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert [density(t) for t in trees(3)] == [6, 3] or [density(t) for t in trees(3)] == [3, 6]


@every
def test_order_conditions(name):
    """Each tableau meets the conditions of all trees up to its order, and misses one of the next."""
    tableau = TABLEAUX[name]
    places = DECIMALS.get(name, 40)
    assert proven_order(tableau, places=places) == tableau.order
    assert defect(tableau.rows, tableau.weights, tableau.order + 1) > Fraction(1, 10**6)
    if tableau.embedded:
        assert proven_order(tableau, tableau.embedded, places) == tableau.embedded_order
        assert tableau.embedded != tableau.weights


@every
def test_nodes_are_row_sums(name):
    """Each node is the sum of its row, exactly where the coefficients are rational, and lies in the step."""
    tableau = TABLEAUX[name]
    decimal = max(value.denominator for row in tableau.rows for value in (*row, Fraction(0))) > 10**20
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        assert abs(sum(row) - node) <= (Fraction(1, 10 ** DECIMALS.get(name, 40)) if decimal else 0)
        assert 0 <= node <= 1


def test_there_are_enough_of_them():
    """There are more than forty explicit tableaux, up to order 8, and all names and aliases differ."""
    assert len(TABLEAUX) - len(IMPLICIT) > 40
    assert max(tableau.order for tableau in TABLEAUX.values()) == 8
    names = [word for tableau in TABLEAUX.values() for word in (tableau.name, *tableau.aliases)]
    assert len(names) == len(set(names))
    assert all(tableau.reference and tableau.summary for tableau in TABLEAUX.values())


# Butcher's simplifying assumptions C(q) on the rows and D(q) on the columns that define each family.
SIMPLIFYING = {
    "gauss": (0, 0), "radau_ia": (-1, 0), "radau_iia": (0, -1),
    "lobatto_iiia": (0, -2), "lobatto_iiib": (-2, 0), "lobatto_iiic": (-1, -1),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in IMPLICIT if n.rstrip("0123456789") in SIMPLIFYING])
def test_definition_of_implicit_families(name):
    """Gauss, Radau and Lobatto methods keep the simplifying assumptions that define them, and no more."""
    tableau, s = TABLEAUX[name], TABLEAUX[name].stages
    a, b, c = tableau.rows, tableau.weights, tableau.nodes
    less_c, less_d = SIMPLIFYING[name.rstrip("0123456789")]

    def rows_exact(q):
        return max(abs(sum(a[i][j] * c[j] ** (q - 1) for j in range(s)) - c[i] ** q / q) for i in range(s))

    def columns_exact(q):
        return max(
            abs(sum(b[i] * c[i] ** (q - 1) * a[i][j] for i in range(s)) - b[j] * (1 - c[j] ** q) / q)
            for j in range(s)
        )

    for exact, least in ((rows_exact, s + less_c), (columns_exact, s + less_d)):
        assert all(exact(q) < Fraction(1, 10**40) for q in range(1, least + 1))
        assert exact(least + 1) > Fraction(1, 10**6)


SYMMETRIC = (
    "implicit_midpoint",
    "trapezoid",
    *(n for n in IMPLICIT if n[:5] in ("gauss", "lobat") and "iiic" not in n),
)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_methods(name):
    """A symmetric method is its own inverse by a step back: ``a_ij + a_(s+1-i)(s+1-j) = b_j``."""
    tableau, s = TABLEAUX[name], TABLEAUX[name].stages
    for i in range(s):
        for j in range(s):
            both = tableau.rows[i][j] + tableau.rows[s - 1 - i][s - 1 - j]
            assert abs(both - tableau.weights[j]) < Fraction(1, 10**40)


@pytest.mark.parametrize(("name", "order"), [("ees25", 5), ("ees27", 7)])
def test_effectively_symmetric(name, order):
    """A step and a step back of an effectively symmetric method are the identity up to the order it names."""
    tableau = TABLEAUX[name]
    back = [(*tableau.weights, *(-a for a in row)) for row in tableau.rows]
    weights = (*tableau.weights, *(-b for b in tableau.weights))
    worst = [
        max(abs(phi) for phi in elementary_weights([*tableau.rows, *back], weights, n))
        for n in range(1, order + 2)
    ]
    assert max(worst[:-1]) < 10 ** (PLACES - 40)
    assert worst[-1] > 10 ** (PLACES - 6)


@pytest.mark.parametrize("name", IMPLICIT)
def test_each_sweep_wins_an_order(name):
    """An implicit method after m sweeps is an explicit one whose order is the lower of its own and m + 1."""
    tableau = TABLEAUX[name]
    for sweeps in range(1, tableau.order + 1):
        method = swept(tableau, sweeps)
        assert method.explicit
        assert proven_order(method) == method.order == min(tableau.order, sweeps + 1)
        if method.embedded:
            assert proven_order(method, method.embedded) == method.embedded_order
        assert RungeKutta(name, sweeps=sweeps).order == method.order


# The place of Merson's second stage is free: his third makes up for any.
FREE = {"merson4": {(2, 0)}}


@pytest.mark.parametrize("name", [n for n in TABLEAUX if TABLEAUX[n].order > 1])
def test_a_wrong_coefficient_is_found(name):
    """A change of any one coefficient, but for one that is free, breaks a condition that the tableau met."""
    tableau = TABLEAUX[name]
    if tableau.explicit:
        tableau = pruned(tableau._replace(embedded=None))
    tables, unseen = [tableau.weights, *tableau.rows], set()
    for k, row in enumerate(tables):
        for j, value in enumerate(row):
            wrong = [*tables[:k], (*row[:j], value + Fraction(1, 1000), *row[j + 1 :]), *tables[k + 1 :]]
            orders = range(1, tableau.order + 1)
            if value and all(defect(wrong[1:], wrong[0], n) < Fraction(1, 10**12) for n in orders):
                unseen.add((k, j))
    assert unseen == FREE.get(name, set())


def textbook(tableau, f, y, t, h, sweeps=0):
    """One step by the book, each stage solved by itself; with `sweeps` for implicit methods."""
    slopes = [f(t, y)] * tableau.stages
    for _ in range(sweeps or 1):
        for i, row in enumerate(tableau.rows):
            state = y + sum((h * a * k for a, k in zip(row, slopes, strict=False) if a), 0 * y)
            slopes[i] = f(t + h * tableau.nodes[i], state)
    ends = [
        b and sum(h * w * k for w, k in zip(b, slopes, strict=True))
        for b in (tableau.weights, tableau.embedded)
    ]
    return [y + end for end in ends if end is not None]


@every
def test_measured_order(name):
    """On a nonlinear equation the error of a step falls with the order plus one, of both ends of a pair."""
    tableau, sizes = TABLEAUX[name], [0.004, 0.002, 0.001]

    def exact(t):
        return mpmath.sin(2 * t) + t / 3

    def f(t, y):
        return 2 * mpmath.cos(2 * t) + mpmath.mpf(1) / 3 + 2 * (mpmath.sin(y) - mpmath.sin(exact(t)))

    with mpmath.workdps(40):
        start, errors = mpmath.mpf("0.7"), []
        for h in map(mpmath.mpf, sizes):
            ends = textbook(tableau, f, exact(start), start, h, 0 if tableau.explicit else 10)
            errors.append([float(abs(end - exact(start + h))) for end in ends])
    found = [slope(sizes, list(column)) - 1 for column in zip(*errors, strict=True)]
    assert found[0] == pytest.approx(tableau.order, abs=0.2)
    if tableau.embedded:
        assert found[1] == pytest.approx(tableau.embedded_order, abs=0.2)


@paths
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["midpoint", "ralston3", "rk4", "tsitouras5", "butcher7", "gauss4"])
def test_order_in_each_space(name, space, path):
    """One step has the tableau's order whatever variable is integrated, on both paths."""
    sampler, sizes = RungeKutta(name, space), [0.01, 0.005, 0.0025]
    errors = [one_step_error(sampler, path, h, (), 0.3) for h in sizes]
    assert slope(sizes, errors) - 1 == pytest.approx(sampler.order, abs=0.25)


@pytest.mark.parametrize("name", ["rk4", "dormand_prince5", "cooper_verner8", "sdirk3", "lobatto_iiic4"])
@pytest.mark.parametrize(("path", "space"), [("ve", "ratio"), ("flow", "velocity")])
def test_a_step_is_the_textbooks(name, path, space):
    """Where the variable is sigma itself, a step is that of the books on ``dx/dsigma = (x - D) / sigma``."""
    sigma, sigma_next, problem = 0.8, 0.5, Mixture(path=path)
    tableau = TABLEAUX[name]
    x = random_state(0, 3, (2,), 1.0)

    def derivative(level, state):
        return (state - problem(state, torch.full((3,), float(level), dtype=torch.float64))) / float(level)

    floats = tableau._replace(
        nodes=tuple(map(float, tableau.nodes)),
        rows=tuple(tuple(map(float, row)) for row in tableau.rows),
        weights=tuple(map(float, tableau.weights)),
        embedded=None,
    )
    sweeps = 0 if tableau.explicit else tableau.order - 1
    expected = textbook(floats, derivative, x, sigma, sigma_next - sigma, sweeps)[0]
    found = RungeKutta(name, space)(problem, x, [sigma, sigma_next])
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@paths
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["midpoint", "tsitouras5", "dop853", "radau_ia3"])
def test_a_constant_is_exact(name, space, path):
    """A constant denoiser moves the state along the ray to it, whatever variable is integrated."""
    x, grid = random_state(0, 3, (2,), 1.0), [1.0, 0.7, 0.2]
    found = RungeKutta(name, space)(_three(path), x, grid)
    assert torch.allclose(found, 3.0 + (x - 3.0) * 0.2, rtol=0, atol=1e-13)


def _three(path):
    def denoiser(x, sigma):
        return torch.full_like(x, 3.0)

    denoiser.path = path
    return denoiser


@pytest.mark.parametrize("space", SPACES)
@every
def test_stages_lie_inside_their_step(name, space):
    """No stage is at or below level 0 or outside its step, and those at the end are exactly there."""
    for path, grid in (("ve", [14.0, 2.0, 1e-3, 0.0]), ("flow", [1.0, 0.6, 1e-3, 0.0])):
        plan = RungeKutta(name, space).plan(grid, path)
        method = explicit_form(name, pair=False)
        for step in plan.steps[:-1]:
            levels = [op.sigma for op in step.ops if isinstance(op, Evaluate)]
            assert len(levels) == method.stages
            for node, level in zip(method.nodes, levels, strict=True):
                assert step.sigma_next <= level <= step.sigma
                assert (level == step.sigma) == (node == 0)
                assert (level == step.sigma_next) == (node == 1)


@pytest.mark.parametrize("space", ["ratio", "data", "noise"])
def test_first_step_of_a_flow_is_the_velocitys(space):
    """From sigma = 1 each space takes the step of the velocity, and from below it its own."""
    x, problem = random_state(0, 3, (2,), 1.0), Mixture(path="flow")
    ours, velocity = RungeKutta("rk4", space), RungeKutta("rk4", "velocity")
    assert torch.equal(ours(problem, x, [1.0, 0.9]), velocity(problem, x, [1.0, 0.9]))
    assert not torch.equal(ours(problem, x, [0.99, 0.9]), velocity(problem, x, [0.99, 0.9]))


@paths
def test_heun_by_its_tableau_is_heun(path):
    """Where its variable is sigma ``heun2`` is `heun`, and the trapezoid swept once is the explicit one."""
    x, problem, grid = random_state(0, 3, (2,), 1.0), Mixture(path=path), [0.9, 0.5, 0.2, 0.0]
    space, other = ("ratio", "velocity") if path == "ve" else ("velocity", "ratio")
    found = kd.get_sampler("heun2", space=space)(problem, x, grid)
    heun = kd.get_sampler("heun")(problem, x, grid)
    assert torch.allclose(found, heun, rtol=1e-13)
    assert not torch.allclose(kd.get_sampler("heun2", space=other)(problem, x, grid), heun, rtol=1e-4)
    assert torch.allclose(found, RungeKutta("trapezoid", space, sweeps=1)(problem, x, grid), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [("dormand_prince5", 6), ("bogacki_shampine3", 3), ("fehlberg7", 11), ("verner6", 7), ("zonneveld4", 4),
     ("dop853", 12), ("gragg8", 17), ("trapezoid", 2), ("gauss4", 7), ("gauss8", 29), ("lobatto_iiia4", 7)],
)  # fmt: skip
def test_evaluations(name, evaluations):
    """A fixed step evaluates no stage that serves only the estimate of an error, nor the start twice."""
    plan = kd.plan(kd.get_sampler(name), [2.0, 1.0], path="ve")
    assert sum(isinstance(op, Evaluate) for op in plan.ops) == evaluations


@given(alpha=st.fractions(Fraction(1, 10), 1, max_denominator=50))
@few
def test_family_of_two_stages(alpha):
    """Each member of the family of two stages is of order 2."""
    assert proven_order(two_stage(alpha)) == 2


@given(number=st.integers(1, 10**6))
@few
def test_root(number):
    """The square root is right to 60 digits, and exact where it is rational."""
    assert 0 <= number - root(number) ** 2 < Fraction(3 * number, 10**60)
    assert root(number**2) == number


@every
def test_each_tableau_has_a_name(name):
    """Each tableau is a sampler by its name and aliases, of its order, with its reference."""
    tableau = TABLEAUX[name]
    entry = next(e for e in kd.list_samplers() if e.name == name)
    assert (entry.reference, entry.summary) == (tableau.reference, tableau.summary)
    for word in (name, *tableau.aliases):
        assert kd.get_sampler(word) == RungeKutta(name) == RungeKutta(word)
        assert find_tableau(word) is tableau
    assert kd.get_sampler(name).order == tableau.order


def test_first_same_as_last():
    """The pairs whose last stage is the next step's first say so."""
    explicit = {name for name in PAIRS if TABLEAUX[name].first_same_as_last and TABLEAUX[name].explicit}
    assert explicit == {"bogacki_shampine3", "dormand_prince5", "bogacki_shampine5", "tsitouras5"}
    assert TABLEAUX["tsitouras5"].weights[-1] == 0


def test_a_tableau_of_your_own():
    """A tableau made of floats or strings runs, keeps its order and equals the built-in one."""
    own = checked("own", 4, [[], [0.5], [0, 0.5], [0, 0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])
    x, problem, grid = random_state(0, 3, (2,), 1.0), Mixture(), [2.0, 1.0, 0.3, 0.0]
    found = RungeKutta(own)(problem, x, grid)
    assert torch.allclose(found, kd.get_sampler("rk4")(problem, x, grid), rtol=1e-14)
    assert "order 4, 4 stages" in repr(RungeKutta(own))


REFUSED = {
    "row 1 sums to 0.5; it must sum to its node, 0.4": lambda: checked("t", 2, "| 1/2", "0 1", nodes="0 2/5"),
    "rows of [0, 2] entries": lambda: checked("t", 2, "| 1/2 0", "0 1"),
    "the weights sum to 1.5": lambda: checked("t", 2, "| 1/2", "1/2 1"),
    "the embedded weights sum to 2": lambda: checked(
        "t", 2, "| 1/2", "0 1", embedded="1 1", embedded_order=1
    ),
    "2 nodes, 2 rows and 3 weights": lambda: checked("t", 2, "| 1/2", "0 1 0"),
    "1 embedded weights for 2 stages": lambda: checked(
        "t", 2, "| 1/2", "0 1", embedded="1", embedded_order=1
    ),
    "orders 2 and 0": lambda: checked("t", 2, "| 1/2", "0 1", embedded="1 0"),
    "orders 0 and 0": lambda: checked("t", 0, "| 1/2", "0 1"),
    "node 1 is 1.5": lambda: checked("t", 2, "| 3/2", "2/3 1/3"),
    "row 1: Invalid literal": lambda: checked("t", 2, "| half", "0 1"),
    "weights: ": lambda: checked("t", 1, "", [float("nan")]),
    "there is no tableau 'dormand_prince'; did you mean 'dormand_prince5'": lambda: RungeKutta(
        "dormand_prince"
    ),
    "neither a name nor a Tableau": lambda: RungeKutta(4),
    "tableau 'rk4': 3 nodes": lambda: RungeKutta(TABLEAUX["rk4"]._replace(nodes=TABLEAUX["rk4"].nodes[:3])),
    "sweeps=0 must be a whole number of at least 1": lambda: RungeKutta("gauss4", sweeps=0),
    "sweeps=2.0 must be": lambda: RungeKutta("gauss4", sweeps=2.0),
    "'rk4' is explicit": lambda: RungeKutta("rk4", sweeps=2),
    "space='sigma' must be one of": lambda: RungeKutta("rk4", space="sigma"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message):
    """What is no tableau, no name of one, or no number of sweeps is refused, and the message says why."""
    with pytest.raises(ParameterError) as caught:
        REFUSED[message]()
    assert message in str(caught.value)


def test_tableaux_cannot_be_changed():
    """The table of tableaux is read-only, and each is under its own name."""
    with pytest.raises(TypeError):
        TABLEAUX["rk4"] = TABLEAUX["heun2"]  # type: ignore[index]
    assert all(isinstance(tableau, Tableau) and tableau.name == name for name, tableau in TABLEAUX.items())
