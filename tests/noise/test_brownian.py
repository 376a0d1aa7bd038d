"""The grid-independent Brownian path, and what counts as going over a path again."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import F64, Gaussian, levels

import kdiff_core as kd
from kdiff_core.brownian import Visits
from kdiff_core.errors import NoiseError
from kdiff_noise import brownian
from kdiff_noise.brownian import BrownianNoise

within = st.floats(0.0, 100.0)
LONG = torch.empty(1, 200_000, dtype=F64)


def increment(source, x, a, b, *more):
    return source.noise(x, a, b, *more) * math.sqrt(abs(a - b))


def linear(level):
    """A path's value as a linear form: weights of its draws from 0 on, and its leaf, place and width."""
    below = range(brownian.LOWEST - 1, brownian._octave(level))
    roots = {brownian.Node(octave, -1, 0): math.sqrt(brownian._width(octave)) for octave in below}
    return roots | dict(brownian._weights(level)), brownian._leaf(level)


def covariance(a, b):
    """Of the path at two levels, by the weights and by the covariance that a leaf's bridge should have."""
    (first, one), (second, two) = linear(a), linear(b)
    inside = 0.0
    if one[0] == two[0]:
        inside = one[2] * (min(one[1], two[1]) - one[1] * two[1])
    return sum(weight * second.get(node, 0.0) for node, weight in first.items()) + inside


@given(st.tuples(within, within) | st.floats(1e-9, 100.0).map(lambda a: (a, a * (1 + 1e-4))))
def test_the_covariance_is_that_of_a_brownian_path(ends):
    """The path's values at two levels, however near, have the lower level as their covariance."""
    a, b = ends
    assert covariance(a, b) == pytest.approx(min(a, b), rel=1e-12, abs=1e-12)


@given(st.lists(st.floats(0.0, 50.0), min_size=2, max_size=6, unique=True), st.integers(0, 99))
def test_an_interval_is_the_sum_of_its_parts(points, seed):
    """Increments over adjoining intervals add up, whatever levels lie between, to rounding."""
    source, x = BrownianNoise(seed), torch.empty(2, 3, dtype=F64)
    points = sorted(points, reverse=True)
    parts = sum(increment(source, x, a, b) for a, b in pairwise(points))
    whole = increment(source, x, points[0], points[-1])
    assert torch.allclose(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("places", [(0.3, 0.31), (0.5, 0.501), (0.01, 0.02), (0.25, 0.75)])
def test_one_random_term_has_the_bridges_covariance(places):
    """Inside a leaf the drawn values have the covariance min(u, v) - u v, to five standard errors."""
    node = brownian.Node(0, brownian.DEPTH, 7)
    u, v = places
    total = [torch.zeros(1, 400_000, dtype=F64)]
    walk = brownian._Walk(BrownianNoise(1), "step", 0, total)
    first, second = walk.bridge(node, u)[0], walk.bridge(node, v)[0]
    products, squares = first * second, (second - first) ** 2
    for found, exact in ((products, min(u, v) - u * v), (squares, (v - u) * (1 - (v - u)))):
        error = float(found.std()) / math.sqrt(found.numel())
        assert abs(float(found.mean()) - exact) < 5 * error
        assert error < 0.1 * exact


def test_normal_where_steps_are_not_tiny():
    """On a grid of 100 steps each interval's noise has the moments of a normal distribution."""
    source, grid = BrownianNoise(0), kd.get_schedule("karras")(100, sigma_min=0.03, sigma_max=14.6)
    for a, b in list(pairwise(grid))[3:-1:20]:
        drawn = source.noise(LONG, a, b)
        n = drawn.numel()
        assert abs(float(drawn.mean())) < 5 / math.sqrt(n)
        assert abs(float(drawn.var()) - 1) < 5 * math.sqrt(2 / n)
        assert abs(float((drawn**4).mean()) - 3) < 5 * math.sqrt(96 / n)


def test_what_is_held_changes_nothing():
    """A source that was asked for anything before gives the bits that a fresh one gives."""
    used, x = BrownianNoise(5), torch.empty(2, 4)
    for a, b in ((9.0, 3.0), (3.0, 2.9), (0.1, 0.0), (2.95, 2.91)):
        used.noise(x, a, b)
    for ask in ((3.0, 2.9), (2.9, 1.0), (3.0, 2.9, "churn"), (3.0, 2.9, "step", 1)):
        assert torch.equal(used.noise(x, *ask), BrownianNoise(5).noise(x, *ask))
        assert torch.equal(used.noise(x, *ask), used.noise(x, *ask))


def test_memory_does_not_grow():
    """After any number of steps no more draws are held than two levels need."""
    source, x = BrownianNoise(0), torch.empty(1, 2)
    most = 0
    for a, b in pairwise(kd.get_schedule("karras")(1000, sigma_min=0.03, sigma_max=14.6)):
        source.noise(x, a, b)
        most = max(most, len(source._held.values) + len(source._held.free))
    assert most <= 4 * (brownian.DEPTH + 3)


def test_more_steps_approach_one_picture():
    """With one path finer grids approach one result; with independent draws they do not."""
    sampler = kd.get_sampler("euler_ancestral")
    x = torch.randn(1, 125, 4, generator=torch.Generator().manual_seed(0), dtype=F64) * 10

    def change(make):
        runs = [sampler(Gaussian("ve"), x, levels("ve", n), noise=make()) for n in (100, 200, 400)]
        return [float((b - a).pow(2).mean().sqrt()) for a, b in pairwise(runs)]

    first, second = change(lambda: kd.get_noise("brownian", seed=1))
    assert second < 0.8 * first < 0.1
    assert min(change(lambda: kd.KeyedNoise(1))) > 0.3


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_3m_sde", "restart"])
def test_samplers_run_with_it(name):
    """Sample 1 of a batch is what it is alone, with a list of seeds and with one seed."""
    grid = levels("ve", 8)
    x = torch.ones(2, 4, dtype=F64)
    batch = kd.get_sampler(name)(Gaussian("ve"), x, grid, noise=kd.get_noise("brownian", seed=[3, 4]))
    alone = kd.get_sampler(name)(Gaussian("ve"), x[:1], grid, noise=kd.get_noise("brownian", seed=4))
    assert torch.equal(batch[1], alone[0])
    batch = kd.get_sampler(name)(Gaussian("ve"), x, grid, noise=BrownianNoise(3))
    alone = kd.get_sampler(name)(Gaussian("ve"), x[:1], grid, noise=BrownianNoise(3, index=[1]))
    assert torch.equal(batch[1], alone[0])


def test_a_value_like_any_other():
    """It is equal, hashable, printable and picklable by its seed and index, and refuses what does not fit."""
    source = BrownianNoise([1, 2])
    source.noise(torch.empty(2, 3), 1.0, 0.5)
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert hash(again) == hash(source)
    assert repr(source) == "BrownianNoise(seed=(1, 2), index=None)"
    with pytest.raises(NoiseError, match="batch of 3"):
        kd.get_sampler("euler_ancestral")(lambda x, s: x, torch.ones(3, 1), [1.0, 0.5], noise=source)
    with pytest.raises(ValueError, match="seed=-1"):
        BrownianNoise(-1)


def test_a_restart_comes_again():
    """Where a restart goes over levels again, on levels of its own too, its noise is of another visit."""
    sampler = kd.get_sampler("euler_ancestral")
    plan = kd.plan(kd.get_modifier("restart", "euler", restart_steps=5, restart_times=2), levels("ve", 10))
    ups = [op.visit for op in plan.noises]
    assert ups == [0, 1]
    down = kd.plan(sampler, levels("ve", 10)).noises
    assert {op.visit for op in down} == {0}


def test_visits():
    """What lies below all earlier requests is new; later steps inside it come again, each step as a whole."""
    visits = Visits()
    assert [visits.of(0, 4.0, 3.0, "step"), visits.of(0, 4.0, 2.0, "step")] == [0, 0]
    assert visits.of(1, 2.0, 1.0, "step") == 0
    assert visits.of(2, 2.5, 2.2, "step") == 1
    assert visits.of(2, 2.5, 1.9, "step") == 1
    assert visits.of(3, 1.9, 1.5, "step") == 1  # of step 1, and beside step 2
    assert visits.of(4, 2.4, 1.5, "step") == 2
    assert visits.of(5, 4.5, 4.1, "step") == 0
    assert visits.of(5, 2.0, 1.5, "churn") == 0
    assert visits.of(6, 1.0, 0.5, "step") == 0
