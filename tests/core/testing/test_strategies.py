"""The strategies of the kit: what they draw is what they say, and every corner that they name is drawn."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from kdiff_core import Grid
from kdiff_core.errors import ParameterError
from kdiff_core.path import as_path, path_grid
from kdiff_core.testing import problems as kit
from kdiff_core.testing import strategies as draw

PATHS = ("ve", "flow")
both = pytest.mark.parametrize("path", PATHS)
shrunk = settings(max_examples=2000, database=None, derandomize=True)
search = settings(shrunk, phases=(Phase.generate,))


def lengths(path, grid):
    """Finite lengths of the steps in log-SNR."""
    found = [as_path(path).lambda_(level) for level in grid]
    return [b - a for a, b in pairwise(found) if math.isfinite(b - a)]


@both
@given(data=st.data())
def test_grids_are_grids(path, data):
    """Each is a valid grid of its path that prints as itself, whose steps differ as little as it says."""
    grid = data.draw(draw.grids(path))
    assert path_grid(grid, as_path(path)) == Grid.of(grid)
    assert eval(repr(grid)) == grid
    assert 1 <= len(grid) - 1 <= 9
    ratios = [as_path(path).ratio(level) for level in grid]
    assert 5 <= ratios[0] <= 20.000001 or ratios[0] == math.inf
    assert len(grid) == 2 or 0.009999 <= [r for r in ratios if r][-1] <= 0.050001
    steps = lengths(path, grid)
    assert all(0.4999999 <= b / a <= 2.0000001 for a, b in pairwise(steps))
    assert not steps or max(steps) <= 4.0000001 * min(steps)


@both
@given(data=st.data())
def test_extreme_grids_are_grids(path, data):
    """The widest grids in use are valid too, in a thousand steps and in one."""
    grid = data.draw(draw.extreme_grids(path))
    assert path_grid(grid, as_path(path)) == Grid.of(grid)
    assert eval(repr(grid)) == grid
    assert len(grid) - 1 in (1, 2, 3, 10, 100, 1000)


CORNERS = {
    "one step": lambda grid: len(grid) == 2,
    "one step to 0": lambda grid: len(grid) == 2 and grid[-1] == 0,
    "one step, not to 0": lambda grid: len(grid) == 2 and grid[-1] > 0,
    "several steps, not to 0": lambda grid: len(grid) > 3 and grid[-1] > 0,
    "several steps to 0": lambda grid: len(grid) > 3 and grid[-1] == 0,
    "most steps": lambda grid: len(grid) == 10,
}


@pytest.mark.parametrize("corner", CORNERS)
@both
def test_corners_of_grids_are_drawn(path, corner):
    """One step or the most, to 0 or not: all are drawn."""
    find(draw.grids(path), CORNERS[corner], settings=search)


@both
def test_uneven_grids_are_drawn(path):
    """Steps twice and half as long as the one before are drawn."""
    uneven = draw.grids(path, zero=False, start_at_one=False)
    for least, most in ((1.9, 3), (0, 0.55)):
        find(
            uneven,
            lambda g, a=least, b=most: any(a < y / x < b for x, y in pairwise(lengths(path, g))),
            settings=search,
        )


def test_grids_from_one_on_flow():
    """On flow grids begin at 1 or not, as asked; one step from 1 to 0 is drawn; VE has no such start."""
    for wanted in (True, False, None):
        find(draw.grids("flow", start_at_one=wanted), lambda g, w=wanted: w is None or True, settings=search)
    find(draw.grids("flow"), lambda g: g[0] == 1.0, settings=search)
    find(draw.grids("flow"), lambda g: g[0] < 1.0, settings=search)
    assert find(draw.grids("flow"), lambda g: g == (1.0, 0.0), settings=search)
    with pytest.raises(ParameterError, match="start_at_one"):
        find(draw.grids("ve", start_at_one=True), lambda g: True, settings=search)


@given(data=st.data(), zero=st.booleans(), start=st.booleans())
def test_grids_end_and_begin_as_asked(data, zero, start):
    """`zero`, `start_at_one` and `max_steps` are kept."""
    grid = data.draw(draw.grids("flow", max_steps=3, zero=zero, start_at_one=start))
    assert (grid[-1] == 0) == zero
    assert (grid[0] == 1) == start
    assert len(grid) <= 4


@both
def test_the_simplest_grid_is_simple(path):
    """Shrinking ends at one step, or at few even steps from 10 to 0.02."""
    high, low = (as_path(path).from_ratio(r) for r in (10.0, 0.02))
    assert find(draw.grids(path), lambda g: True, settings=shrunk) == (high, low)
    three = find(draw.grids(path), lambda g: len(g) == 4, settings=shrunk)
    assert (three[0], three[-1]) == (high, low)
    steps = lengths(path, three)
    assert max(steps) == pytest.approx(min(steps))


@both
def test_corners_of_extreme_grids_are_drawn(path):
    """Ratios of 2e4 and 1e-4, 1 and 1000 steps, ends in 0 and not, and the start at 1 on flow are drawn."""
    ratio = as_path(path).ratio
    corners = [
        lambda g: len(g) == 1001 and g[-1] == 0,
        lambda g: len(g) == 1001 and g[-1] > 0,
        lambda g: len(g) == 2 and g[-1] == 0,
        lambda g: len(g) == 2 and g[-1] > 0,
        lambda g: 1.9e4 < ratio(g[0]) < 2.1e4 and 0 < ratio(g[-1]) < 1.01e-4,
    ]
    for corner in corners + [lambda g: g[0] == 1.0] * (path == "flow"):
        find(draw.extreme_grids(path), corner, settings=search)


@given(data=st.data(), n=st.integers(0, 8))
def test_step_ratios_are_within_a_factor_of_two(data, n):
    """As many as asked for, between a half and two."""
    ratios = data.draw(draw.step_ratios(n))
    assert len(ratios) == n
    assert all(0.5 <= ratio <= 2 for ratio in ratios)


def test_corners_of_levels_and_seeds_are_drawn():
    """Both paths, level 1 on flow, high and low levels, small and the largest seeds are drawn."""
    assert {find(draw.paths(), lambda p, q=q: p == q, settings=search) for q in PATHS} == set(PATHS)
    assert find(draw.noise_levels("flow"), lambda s: s == 1.0, settings=search) == 1.0
    assert find(draw.noise_levels("flow"), lambda s: True, settings=shrunk) == 0.5
    assert find(draw.noise_levels("ve"), lambda s: True, settings=shrunk) == 1.0
    assert find(draw.noise_levels("ve"), lambda s: s > 50, settings=search) <= 100
    assert find(draw.noise_levels("ve"), lambda s: s < 0.02, settings=search) >= 0.01
    assert find(draw.seeds(), lambda s: s > 2**63, settings=search) < 2**64
    assert find(draw.seeds(), lambda s: True, settings=shrunk) == 0


PROBLEMS = {
    "isotropic": (draw.gaussians, lambda p: isinstance(p.covariance, float)),
    "four decades": (
        draw.gaussians,
        lambda p: isinstance(p.covariance, tuple) and isinstance(p.covariance[0], float)
        and max(p.covariance) >= 1e4 * min(p.covariance),
    ),
    "full": (draw.gaussians, lambda p: kit.rank(p.covariance) == 2 and p.covariance[0][-1] != 0),
    "slope 1": (draw.linear_denoisers, lambda p: p.slope == 1.0),
    "degree 4": (draw.polynomials, lambda p: p.degree == 4),
    "degree 0": (draw.polynomials, lambda p: p.degree == 0),
    "vector": (draw.constants, lambda p: isinstance(p.value, tuple)),
    "components": (draw.mixtures, lambda p: len(p.weights) == 4 and p.dims == 3),
    "points": (draw.empiricals, lambda p: len(p.points) == 6 and p.smoothing == 0.1),
    **{
        kind: (draw.problems, lambda p, kind=kind: type(p).__name__ == kind)
        for kind in ("Gaussian", "LinearDenoiser", "Constant", "Polynomial", "Mixture", "Empirical")
    },
}  # fmt: skip


@pytest.mark.parametrize("corner", PROBLEMS)
@both
def test_corners_of_problems_are_drawn(path, corner):
    """Every kind of problem and of Gaussian is drawn, on the path asked for."""
    strategy, condition = PROBLEMS[corner]
    assert find(strategy(path), condition, settings=search).path == path


@both
@given(data=st.data())
def test_problems_work_at_the_levels_of_grids(path, data):
    """A drawn problem, evaluated at a drawn grid's levels, is finite; its repr evaluates back."""
    problem, grid = data.draw(draw.problems(path)), data.draw(draw.grids(path, start_at_one=False))
    x = data.draw(draw.states(batch=2, shape=(problem.dims,)))
    for level in grid[:-1]:
        assert torch.isfinite(problem(x, torch.full((2,), level, dtype=x.dtype))).all()
    assert eval(repr(problem), vars(kit)) == problem


def leaves(state):
    parts = state.values() if isinstance(state, dict) else state
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in parts for leaf in leaves(part)]


def depth(state):
    if isinstance(state, torch.Tensor):
        return 0
    return 1 + max(depth(part) for part in (state.values() if isinstance(state, dict) else state))


@given(data=st.data(), batch=st.integers(1, 4))
def test_states_have_the_batch_and_shape_asked_for(data, batch):
    """States and all parts of a nest have one batch; a nest is at most two deep."""
    assert data.draw(draw.states(batch, (2, 3))).shape == (batch, 2, 3)
    nest = data.draw(draw.nested_states(batch))
    assert {len(leaf) for leaf in leaves(nest)} == {batch}
    assert depth(nest) <= 2
    own = data.draw(draw.nested_states())
    assert len({len(leaf) for leaf in leaves(own)}) == 1


@pytest.mark.parametrize("kind", [torch.Tensor, dict, tuple, list])
def test_kinds_of_nests_are_drawn(kind):
    """A bare tensor, dicts, tuples and lists, flat and two deep, are drawn."""
    find(draw.nested_states(), lambda s: isinstance(s, kind), settings=search)
    if kind is not torch.Tensor:
        find(draw.nested_states(), lambda s: isinstance(s, kind) and depth(s) == 2, settings=search)
