"""Linear combinations, grids, paths and numerics: the host's arithmetic."""

from __future__ import annotations

import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kdiff_core import FLOW, VE, Grid, Linear
from kdiff_core.errors import GridError, KdiffError, ParameterError, TraceError
from kdiff_core.numerics import exp, expm1, gauss_legendre, lagrange_integrals, log, phi, sqrt
from kdiff_core.path import ancestral_down, as_path

weights = st.floats(-10, 10, allow_nan=False)
terms = st.dictionaries(st.integers(0, 5), weights, max_size=4)


def value(combination: Linear, registers: list[float]) -> float:
    return sum(w * registers[r] for r, w in combination.terms.items())


@given(a=terms, b=terms, k=weights, registers=st.lists(weights, min_size=6, max_size=6))
def test_linear_is_what_it_stands_for(a, b, k, registers):
    """Arithmetic on symbols, evaluated, is arithmetic on the values."""
    x, y = Linear(a), Linear(b)
    p, q = value(x, registers), value(y, registers)
    for symbol, number in ((x + y, p + q), (x - y, p - q), (-x, -p), (k * x, k * p), (x * k - y, p * k - q)):
        assert value(symbol, registers) == pytest.approx(number, rel=1e-12, abs=1e-9)
    assert sum([x, y]).terms == (x + y).terms
    if abs(k) > 1e-3:
        assert value(x / k, registers) == pytest.approx(p / k, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * x,
        lambda x: x / x,
        lambda x: x + 1.0,
        lambda x: 1.0 - x,
        lambda x: x.abs(),
        lambda x: x.clamp(-1, 1),
        lambda x: x * torch.ones(3),
        lambda x: np.ones(3) * x,
        bool,
    ],
)
def test_what_is_not_linear_is_refused_with_the_way_out(operation):
    """Anything but sums and products with numbers is an error that says how to run such a sampler."""
    with pytest.raises(TraceError, match="linear = False"):
        operation(Linear({0: 1.0}))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30, unique=True), st.booleans())
def test_grids_keep_their_levels_exactly(values, zero):
    """A grid made of a list, tuple, array or tensor has those floats, and equals itself in every form."""
    given_levels = sorted(values, reverse=True) + ([0.0] if zero or len(values) == 1 else [])
    grid = Grid.of(given_levels)
    assert list(grid) == given_levels
    assert grid.steps == len(grid) - 1
    for other in (
        tuple(given_levels),
        np.array(given_levels),
        torch.tensor(given_levels, dtype=torch.float64),
        grid,
    ):
        assert Grid.of(other) == grid
        assert hash(Grid.of(other)) == hash(grid)
    assert np.asarray(grid).tolist() == given_levels
    assert pickle.loads(pickle.dumps(grid)) == grid


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "0 given"),
        ([1.0], "at least two"),
        ([1.0, 2.0], r"sigmas\[1\] = 2.0 rises"),
        ([2.0, 1.0, 1.0], r"sigmas\[2\] = 1.0 repeats"),
        ([2.0, -1.0], r"sigmas\[1\] is -1.0"),
        ([2.0, 0.0, 0.0], r"sigmas\[1\] is 0"),
        ([math.nan, 1.0], r"sigmas\[0\] is nan"),
        ([math.inf, 1.0], r"sigmas\[0\] is inf"),
        (7.0, "no list"),
        (torch.tensor(7.0), "no list"),
        ([[1.0], [0.0]], "no list"),
        (["a", "b"], "no list"),
    ],
)
def test_bad_grids_are_refused_with_the_place(levels, message):
    """An empty, rising, repeated, negative or non-finite grid is refused with the offending position."""
    with pytest.raises(GridError, match=message):
        Grid.of(levels)


@given(st.floats(1e-4, 0.9999))
def test_paths_are_inverse_and_consistent(sigma):
    """Lambda and noise over signal have their inverses, and lambda is minus the log of the latter."""
    for path in (VE, FLOW):
        assert path.sigma(path.lambda_(sigma)) == pytest.approx(sigma, rel=1e-11)
        assert path.from_ratio(path.ratio(sigma)) == pytest.approx(sigma, rel=1e-11)
        assert path.lambda_(sigma) == pytest.approx(-math.log(path.ratio(sigma)), abs=1e-9)
    assert FLOW.lambda_(1.0) == -math.inf
    assert FLOW.ratio(1.0) == math.inf
    assert FLOW.from_ratio(math.inf) == 1.0
    assert VE.lambda_(0.0) == FLOW.lambda_(0.0) == math.inf
    assert pickle.loads(pickle.dumps(FLOW)) is FLOW
    with pytest.raises(ParameterError, match="'ve'"):
        as_path("vp")


@given(st.floats(1e-3, 0.999), st.floats(0.01, 0.99), st.floats(0.0, 1.5))
def test_ancestral_split_keeps_the_marginal(high, fraction, eta):
    """The level below never exceeds the next, and at eta = 1 is next squared over sigma on both paths."""
    low = high * fraction
    for path in (VE, FLOW):
        for down in (path.ancestral_down(high, low, eta), path.ratio_down(high, low, eta)):
            assert 0.0 <= down <= low * (1 + 1e-12)
        assert path.ancestral_down(high, low, 0.0) == pytest.approx(low, rel=1e-12)
        assert path.ancestral_down(high, low, 1.0) == pytest.approx(low * low / high, rel=1e-6)
    assert ancestral_down(math.inf, 2.0, 1.0) == 0.0


@given(st.integers(0, 4), st.floats(-60, 3))
def test_phi_functions(k, h):
    """phi_k agrees with high precision, near 0 and far from it."""
    assume(h == 0 or abs(h) > 1e-12)
    with mpmath.workdps(60):
        z = mpmath.mpf(h)
        expected = mpmath.exp(z)
        for j in range(1, k + 1):
            expected = (expected - 1 / mpmath.factorial(j - 1)) / z if z != 0 else 1 / mpmath.factorial(j)
    assert phi(k, h) == pytest.approx(float(expected), rel=1e-9)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4), st.floats(-2, 2), st.floats(0.1, 2))
def test_lagrange_integrals_are_exact_for_polynomials(nodes, start, width):
    """The weights integrate every polynomial of a degree below their number exactly."""
    assume(all(abs(a - b) > 0.1 for i, a in enumerate(nodes) for b in nodes[:i]))
    end, found = start + width, lagrange_integrals(nodes, start, start + width)
    for degree in range(len(nodes)):
        exact = (end ** (degree + 1) - start ** (degree + 1)) / (degree + 1)
        total = sum(w * n**degree for w, n in zip(found, nodes, strict=True))
        assert total == pytest.approx(exact, abs=1e-7 * (1 + sum(map(abs, found))) * 3**degree)


@given(st.floats(0.01, 5.0))
def test_numerics_agree_on_every_kind_of_number(x):
    """Floats, torch scalars and high-precision numbers give one value."""
    for f in (exp, expm1, log, sqrt):
        assert float(f(torch.tensor(x, dtype=torch.float64))) == pytest.approx(f(x), rel=1e-12)
        assert float(f(mpmath.mpf(x))) == pytest.approx(f(x), rel=1e-12)
    assert exp(1e9) == expm1(1e9) == math.inf
    assert log(0.0) == -math.inf


def test_errors_are_also_the_builtin_they_refine():
    """Every error is a KdiffError with a plain message, and a built-in one too."""
    error = GridError("what was wrong")
    assert isinstance(error, ValueError)
    assert isinstance(error, KdiffError)
    assert str(error) == "what was wrong"


@pytest.mark.parametrize("n", [1, 2, 5, 12, 24])
def test_gauss_legendre_is_exact(n):
    """The rule of n places integrates each power up to 2 n - 1 to rounding, and errs on the next."""
    errors = [abs(sum(w * u**k for u, w in gauss_legendre(n)) - 1 / (k + 1)) for k in range(2 * n + 1)]
    assert max(errors[: 2 * n]) < 1e-15
    assert n > 10 or errors[2 * n] > 1e-12
