"""Schedules and noise processes: laws that hold for every range, then numbers found another way."""

import math
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdiff_core.errors import GridError, KdiffError, ParameterError
from kdiff_schedules.betas import CosineBetas, LinearBetas, ScaledLinearBetas
from kdiff_schedules.continuous import ContinuousVP
from kdiff_schedules.custom import Custom
from kdiff_schedules.exponential import Exponential, PolyExponential
from kdiff_schedules.karras import Karras
from kdiff_schedules.table import cosine, linear, scaled_linear
from kdiff_schedules.vp import VP

NEED_RANGE = [
    Karras(),
    Karras(rho=1),
    Karras(rho=3.5),
    Exponential(),
    PolyExponential(),
    PolyExponential(rho=2),
]
OWN_RANGE = [VP(), linear(), scaled_linear(), cosine()]
ALL = NEED_RANGE + OWN_RANGE
PROCESSES = [ScaledLinearBetas(), LinearBetas(), CosineBetas(), ScaledLinearBetas(steps=50)]

law = settings(deadline=None)  # how long an example takes says nothing on a shared machine
schedules = st.sampled_from(ALL)
counts = st.integers(1, 1000)
lows = st.floats(1e-4, 10)
ratios = st.floats(1.01, 1e6)


@law
@given(schedules, counts, lows, ratios)
def test_laws(schedule, n, low, ratio):
    """Every schedule gives exactly n strictly decreasing steps, from the one end to the other, then 0."""
    high = low * ratio
    grid = schedule(n, sigma_min=low, sigma_max=high)
    levels = list(grid)
    assert grid.steps == n
    assert all(b < a for a, b in pairwise(levels))
    assert levels[0] == high
    assert levels[-1] == 0
    assert n == 1 or levels[-2] == low


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_every_count(schedule):
    """No count from 1 to 1000 is special on the range of a common model."""
    process = ScaledLinearBetas()
    for n in range(1, 1001, 7):
        assert schedule(n, process=process).steps == n
    assert schedule(1000, process=process).steps == 1000


@law
@given(schedules, counts, st.sampled_from(PROCESSES))
def test_process_gives_the_range(schedule, n, process):
    """Without a range the process's own ends are met bit for bit."""
    grid = schedule(n, process=process)
    assert grid[0] == process.sigma_max
    assert n == 1 or grid[n - 1] == process.sigma_min


@law
@given(st.sampled_from(PROCESSES), st.floats(0, 1))
def test_process_round_trip_from_time(process, t):
    """The time of the level at a time is that time."""
    assert process.t(process.sigma(t)) == pytest.approx(t, abs=1e-12)


@law
@given(st.sampled_from(PROCESSES), st.floats(1e-4, 1e6))
def test_process_round_trip_from_level(process, sigma):
    """The level at the time of a level is that level, beyond the table's ends too."""
    assert process.sigma(process.t(sigma)) == pytest.approx(sigma, rel=1e-9)


@law
@given(st.sampled_from(PROCESSES), st.data())
def test_process_entries_are_exact(process, data):
    """At the time of a table entry the level is the entry, bit for bit, and so back."""
    i = data.draw(st.integers(0, process.steps - 1))
    t = process.t(process.levels[i])
    assert t == i / (process.steps - 1)
    assert process.sigma(t) == pytest.approx(process.levels[i], rel=1e-13)
    assert process.sigma(0.0) == process.sigma_min
    assert process.sigma(1.0) == process.sigma_max


@law
@given(st.sampled_from(PROCESSES), st.floats(-0.1, 1), st.floats(1e-6, 0.05))
def test_process_rises(process, t, step):
    """The level rises with time."""
    assert process.sigma(t) < process.sigma(t + step)


@law
@given(st.floats(1e-6, 1e6))
def test_vp_round_trip(sigma):
    """The VP process's time and level are inverse to each other at every level."""
    assert ContinuousVP().level(ContinuousVP().time(sigma)) == pytest.approx(sigma, rel=1e-9)


@law
@given(counts, lows, ratios, st.floats(0.5, 20))
def test_karras_formula(n, low, ratio, rho):
    """Karras levels are those of the paper's formula, a power of the mean of the ends' roots."""
    high = low * ratio
    u = np.linspace(0, 1, n)
    expected = ((1 - u) * high ** (1 / rho) + u * low ** (1 / rho)) ** rho
    np.testing.assert_allclose(
        list(Karras(rho=rho)(n, sigma_min=low, sigma_max=high))[:-1], expected, rtol=1e-10
    )


@law
@given(counts, lows, ratios)
def test_exponential_formula(n, low, ratio):
    """Exponential levels are a geometric sequence, and polyexponential ones with rho = 1 the same."""
    grid = list(Exponential()(n, sigma_min=low, sigma_max=low * ratio))
    expected = np.exp(np.linspace(np.log(low * ratio), np.log(low), n))
    np.testing.assert_allclose(grid[:-1], expected, rtol=1e-12)
    assert grid == list(PolyExponential(rho=1)(n, sigma_min=low, sigma_max=low * ratio))


def test_literal_numbers():
    """A few levels, worked out by hand, stay what they are."""
    levels = list(Karras(rho=2)(3, sigma_min=1, sigma_max=9))
    assert levels == pytest.approx([9, 4, 1, 0], rel=1e-14)
    levels = list(Exponential()(4, sigma_min=0.01, sigma_max=10))
    assert levels == pytest.approx([10, 1, 0.1, 0.01, 0], rel=1e-14)
    levels = list(PolyExponential(rho=2)(3, sigma_min=1, sigma_max=math.e**4))
    assert levels == pytest.approx([math.e**4, math.e, 1, 0], rel=1e-14)
    levels = list(Karras()(4, sigma_min=0.0291675, sigma_max=14.614642))
    assert levels == pytest.approx([14.614642, 3.1686, 0.44692, 0.0291675, 0], rel=2e-5)


def test_vp_numbers():
    """The VP schedule's own range and levels are those of the formula."""
    t = np.linspace(1, 1e-3, 20)
    expected = np.sqrt(np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1)
    np.testing.assert_allclose(list(VP()(20))[:-1], expected, rtol=1e-10)


def numpy_table(name):
    """Levels of a table, by NumPy and through the cumulative product."""
    if name == "cosine":
        edges = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    elif name == "linear":
        betas = np.linspace(1e-4, 2e-2, 1000)
    else:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = np.cumprod(1 - betas)
    return np.sqrt((1 - abar) / abar)


@pytest.mark.parametrize(
    ("name", "process", "schedule"),
    [
        ("linear", LinearBetas(), linear()),
        ("scaled_linear", ScaledLinearBetas(), scaled_linear()),
        ("cosine", CosineBetas(), cosine()),
    ],
)
def test_tables(name, process, schedule):
    """Tables, and the levels between their entries, are those that NumPy finds."""
    table = numpy_table(name)
    np.testing.assert_allclose(process.levels, table, rtol=1e-9)
    for n in (2, 7, 20, 1000):
        at = np.linspace(999, 0, n)
        expected = np.exp(np.interp(at, np.arange(1000), np.log(table)))
        np.testing.assert_allclose(list(schedule(n))[:-1], expected, rtol=1e-9)
    assert schedule(1000)[500] == pytest.approx(table[499], rel=1e-9)


@pytest.mark.parametrize("schedule", NEED_RANGE, ids=repr)
@pytest.mark.parametrize("given_range", [{}, {"sigma_min": 0.1}, {"sigma_max": 10.0}])
def test_missing_range(schedule, given_range):
    """A range that is neither given nor known is an error that names what is missing."""
    with pytest.raises(ParameterError, match=r"sigma_m.*not given.*process="):
        schedule(10, **given_range)


@pytest.mark.parametrize("schedule", OWN_RANGE, ids=repr)
def test_one_end_given(schedule):
    """One end may be given, the other is the schedule's own."""
    low, high = schedule.default_range()
    assert schedule(5, sigma_max=7.0)[0] == 7.0
    assert schedule(5, sigma_max=7.0)[4] == low
    assert schedule(5, sigma_min=0.5)[0] == high


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@pytest.mark.parametrize(
    ("n", "low", "high", "error", "message"),
    [
        (0, 0.1, 10, GridError, "at least 1"),
        (-3, 0.1, 10, GridError, "at least 1"),
        (True, 0.1, 10, GridError, "whole number"),
        (2.0, 0.1, 10, ParameterError, "whole number"),
        ("10", 0.1, 10, ParameterError, "whole number"),
        (5, 10, 0.1, GridError, "below sigma_max"),
        (5, 1, 1, GridError, "below sigma_max"),
        (5, 0, 1, GridError, "above 0"),
        (5, -1, 1, GridError, "above 0"),
        (5, math.nan, 1, GridError, "finite"),
        (5, 0.1, math.inf, GridError, "finite"),
        (5, "0.1", 1, ParameterError, "no number"),
        (5, 1, math.nextafter(1, 2), GridError, "sigmas"),
    ],
)
def test_bad_arguments(schedule, n, low, high, error, message):
    """What is no count or no range is refused, with what would be right."""
    with pytest.raises(error, match=message):
        schedule(n, sigma_min=low, sigma_max=high)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Karras(rho=0),
        lambda: Karras(rho=math.inf),
        lambda: PolyExponential(rho=-1),
        lambda: VP(beta_d=0),
        lambda: VP(eps_s=1),
        lambda: linear(beta_end=1),
        lambda: ScaledLinearBetas(steps=1),
        lambda: LinearBetas(0.9, 0.9, steps=2000).sigma_max,
        lambda: CosineBetas(beta_max=2),
    ],
)
def test_bad_parameters(make):
    """Parameters out of their range are refused when the schedule is made."""
    with pytest.raises(ParameterError):
        make()


@law
@given(st.lists(st.floats(1e-3, 100), min_size=2, max_size=30, unique=True), st.booleans())
def test_custom_levels(levels, as_array):
    """The user's own levels come back as they are, whatever the range."""
    levels = sorted(levels, reverse=True)
    custom = Custom(levels=np.array(levels) if as_array else levels)
    assert list(custom(len(levels) - 1, sigma_min=1e-5, sigma_max=1e5)) == levels


def test_custom_wrong_count():
    """Another number of steps than the levels have is an error that says the number that fits."""
    with pytest.raises(ParameterError, match="n=3"):
        Custom(levels=[3, 2, 1, 0])(4)


@law
@given(counts)
def test_custom_function(n):
    """A function of the number of steps makes the levels."""
    grid = Custom(function=lambda n: [1 - i / n for i in range(n + 1)])(n)
    assert grid.steps == n
    assert (grid[0], grid[n]) == (1, 0)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (Custom, ParameterError),
        (lambda: Custom(levels=[1, 0], function=lambda n: [1, 0]), ParameterError),
        (lambda: Custom(function=3), ParameterError),
        (lambda: Custom(levels=[1, 2]), GridError),
        (lambda: Custom(levels=[1]), GridError),
        (lambda: Custom(function=lambda n: [2, 1, 0])(5), GridError),
        (lambda: Custom(function=lambda n: [0, 1])(1), GridError),
        (lambda: Custom(levels=[1, 0])(0), GridError),
    ],
)
def test_custom_refuses(make, error):
    """Levels that are none, missing or doubled arguments, and wrong counts are refused."""
    with pytest.raises(error) as caught:
        make()
    assert isinstance(caught.value, KdiffError)


@pytest.mark.parametrize("value", [*ALL, *PROCESSES, Custom(levels=[2, 1, 0])], ids=repr)
def test_values(value):
    """Schedules and processes are values: equal when rebuilt, hashable, picklable."""
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value)


def test_listing_imports_no_torch():
    """Listing the schedules, and even building a grid, imports neither torch nor NumPy."""
    code = (
        "import sys, kdiff_schedules.plugin as p; p.kdiff_schedules(); p.kdiff_processes();"
        "from kdiff_schedules import TableTime; TableTime()(20); assert 'torch' not in sys.modules;"
        "assert 'numpy' not in sys.modules"
    )
    path = repr(sys.path)
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {path}; {code}"], check=True)
