"""Hypothesis strategies of the kit: paths, levels, grids, problems, states.

The `repr` of every value (tensors apart) evaluates back to it, given `kdiff_core.testing.problems`, so that
a failure can be pasted. They shrink towards what is simplest to think about: VE, few and even steps from 10
to 0.02, isotropic data, small round numbers. Levels are in units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from ..errors import ParameterError
from ..path import FLOW, as_path
from .problems import (
    Constant,
    Empirical,
    Gaussian,
    LinearDenoiser,
    Mixture,
    Polynomial,
    Problem,
    random_state,
)

if TYPE_CHECKING:
    import torch
    from hypothesis.strategies import SearchStrategy

_HIGH, _LOW = 10.0, 0.02
_VARIANCES = (1.0, 0.5, 0.1, 0.05, 0.01, 2.0, 5.0, 10.0, 50.0, 100.0)


def paths() -> SearchStrategy[str]:
    """Names of the paths, ``"ve"`` and ``"flow"``."""
    return st.sampled_from(("ve", "flow"))


def seeds() -> SearchStrategy[int]:
    """Seeds of a generator, 0 to 2^64 - 1, half of them small."""
    return st.integers(0, 100) | st.integers(0, 2**64 - 1)


def noise_levels(path: str = "ve") -> SearchStrategy[float]:
    """Levels above 0 whose noise-to-signal ratio is 0.01 to 100; on flow also exactly 1."""
    usual = st.floats(-2.0, 2.0).map(lambda power: float(as_path(path).from_ratio(10.0**power)))
    if path != "flow":
        return usual
    # Not `usual | just(1.0)`, which would shrink to 1, as the shorter choice.
    ends = st.sampled_from((False, False, False, True))
    return st.tuples(usual, ends).map(lambda pair: 1.0 if pair[1] else pair[0])


def step_ratios(n: int) -> SearchStrategy[list[float]]:
    """Lists of `n` numbers in [1/2, 2]: how long steps are in log-SNR, relative to each other."""
    return st.lists(st.floats(0.5, 2.0), min_size=n, max_size=n)


@st.composite
def grids(
    draw: st.DrawFn,
    path: str = "ve",
    max_steps: int = 9,
    zero: bool | None = None,
    start_at_one: bool | None = None,
) -> tuple[float, ...]:
    """Strictly decreasing tuples of ``n + 1`` levels, for `n` from 1 to `max_steps`.

    The first noise-to-signal ratio is about 10, the last above 0 about 0.02. In log-SNR a step is half
    to twice as long as the one before it, and none is more than four times as long as another; a last step
    to 0 and a first one from 1 on flow are infinitely long.

    Args:
        draw: Given by Hypothesis.
        path: ``"ve"`` or ``"flow"``.
        max_steps: Largest number of steps.
        zero: Whether the last level is 0. None: either.
        start_at_one: Whether the first level is 1, on flow. None: either there, no on VE.
    """
    way = as_path(path)
    if start_at_one and way is not FLOW:
        raise ParameterError(f"grids: start_at_one=True is for path='flow', not {path!r}")
    steps = draw(st.integers(1, max_steps))
    to_zero = draw(st.booleans()) if zero is None else zero
    from_one = way is FLOW and (draw(st.booleans()) if start_at_one is None else start_at_one)
    lengths = [1.0]
    for ratio in draw(step_ratios(max(0, steps - to_zero - 1))):
        lengths.append(min(2.0, max(0.5, lengths[-1] * ratio)))
    high = draw(st.just(_HIGH) | st.floats(5.0, 20.0))
    low = draw(st.just(_LOW) | st.floats(0.01, 0.05))
    ratios = _spaced(high, low, lengths) if steps > to_zero else [high]
    return _grid(path, ratios, to_zero, from_one)


@st.composite
def extreme_grids(
    draw: st.DrawFn, path: str = "ve", steps: Sequence[int] = (1, 2, 3, 10, 100, 1000)
) -> tuple[float, ...]:
    """Strictly decreasing tuples of levels over the widest ranges in use, in few steps and in many.

    Noise-to-signal ratios begin at 100 to 20,000 (on flow also at the level 1, where the ratio is infinite)
    and end at 0.01 to 0.0001, or in 0. They are even in a root of the ratio, as schedules are: the first
    (which leaps at the end), the 3rd or 7th, or in its logarithm.

    Args:
        draw: Given by Hypothesis.
        path: ``"ve"`` or ``"flow"``.
        steps: Numbers of steps to choose from.
    """
    count = draw(st.sampled_from(tuple(steps)))
    to_zero = draw(st.booleans())
    from_one = path == "flow" and draw(st.booleans())
    high = draw(st.just(20000.0) | st.floats(100.0, 20000.0))
    low = draw(st.just(0.0001) | st.floats(0.0001, 0.01))
    root = draw(st.sampled_from((math.inf, 7.0, 3.0, 1.0)))
    parts = count - to_zero
    if parts == 0:
        ratios = [high]
    elif math.isinf(root):
        ratios = _spaced(high, low, [1.0] * parts)
    else:
        first, last = high ** (1 / root), low ** (1 / root)
        inner = [(first + i / parts * (last - first)) ** root for i in range(1, parts)]
        ratios = [high, *inner, low]
    return _grid(path, ratios, to_zero, from_one)


def _spaced(high: float, low: float, lengths: Sequence[float]) -> list[float]:
    """Ratios from `high` to `low` whose steps in the logarithm are as long as `lengths`, but for a factor."""
    ends = np.cumsum(lengths) / sum(lengths)
    return [high, *(float(high * (low / high) ** end) for end in ends[:-1]), low]


def _grid(path: str, ratios: Sequence[float], to_zero: bool, from_one: bool) -> tuple[float, ...]:
    """Levels of noise-to-signal ratios, with a 0 after them or a 1 in place of the first."""
    levels = [float(as_path(path).from_ratio(ratio)) for ratio in ratios]
    if from_one:
        levels[0] = 1.0
    return (*levels, 0.0) if to_zero else tuple(levels)


def _numbers(low: float, high: float) -> SearchStrategy[float]:
    """Hundredths, which shrink to 0 and print short."""
    return st.integers(round(100 * low), round(100 * high)).map(lambda n: n / 100)


def _vectors(dims: int, low: float = -3.0, high: float = 3.0) -> SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[_numbers(low, high)] * dims)


@st.composite
def _rotated_covariances(draw: st.DrawFn, dims: int) -> tuple[tuple[float, ...], ...]:
    """Variances over four decades, rotated in each pair of dimensions; symmetric to the bit."""
    matrix = np.diag(draw(st.tuples(*[st.sampled_from(_VARIANCES)] * dims)))
    for i in range(dims):
        for j in range(i + 1, dims):
            angle, turn = draw(_numbers(0.0, math.pi)), np.eye(dims)
            turn[i, i] = turn[j, j] = math.cos(angle)
            turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix @ turn.T
    return tuple(map(tuple, ((matrix + matrix.T) / 2).tolist()))


@st.composite
def gaussians(draw: st.DrawFn, path: str = "ve") -> Gaussian:
    """Normal data: isotropic, of variances over four decades along the axes, or with a full covariance."""
    variance, kind = st.sampled_from(_VARIANCES), draw(st.sampled_from(("isotropic", "axes", "full")))
    if kind == "isotropic":
        return Gaussian(path, draw(_numbers(-3.0, 3.0)), draw(variance))
    dims = draw(st.integers(1 if kind == "axes" else 2, 4))
    mean = draw(_numbers(-3.0, 3.0) | _vectors(dims))
    each = st.tuples(*[variance] * dims)
    return Gaussian(path, mean, draw(each if kind == "axes" else _rotated_covariances(dims)))


def linear_denoisers(path: str = "ve") -> SearchStrategy[LinearDenoiser]:
    """Denoisers ``slope x + offset`` with slopes in [-1, 1.5], 1 among them."""
    slopes = _numbers(-1.0, 1.5) | st.just(1.0)
    return st.builds(LinearDenoiser, st.just(path), slopes, _numbers(-2.0, 2.0))


def polynomials(path: str = "ve", max_degree: int = 4) -> SearchStrategy[Polynomial]:
    """Polynomials in the log-SNR up to a degree; on levels above 0 (and below 1 on flow)."""
    coefficients = st.lists(_numbers(-2.0, 2.0), min_size=1, max_size=max_degree + 1).map(tuple)
    return st.builds(Polynomial, st.just(path), coefficients)


def constants(path: str = "ve") -> SearchStrategy[Constant]:
    """Constant denoisers, of a number or of a vector of 1 to 4."""
    vectors = st.integers(1, 4).flatmap(_vectors)
    return st.builds(Constant, st.just(path), _numbers(-3.0, 3.0) | vectors)


@st.composite
def mixtures(draw: st.DrawFn, path: str = "ve") -> Mixture:
    """Mixtures of 1 to 4 components in 1 to 3 dimensions, as wide as they are apart or narrower."""
    dims, count = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    weights = draw(st.tuples(*[st.integers(1, 5).map(float)] * count))
    means = draw(st.tuples(*[_vectors(dims, -2.0, 2.0)] * count))
    return Mixture(path, weights, means, draw(st.tuples(*[st.sampled_from((1.0, 0.5, 0.25, 0.1))] * count)))


@st.composite
def empiricals(draw: st.DrawFn, path: str = "ve") -> Empirical:
    """Data sets of 1 to 6 points in 1 to 3 dimensions."""
    dims, count = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    points = draw(st.tuples(*[_vectors(dims, -2.0, 2.0)] * count))
    return Empirical(path, points, draw(st.sampled_from((0.5, 0.3, 0.1, 0.05))))


def problems(path: str = "ve") -> SearchStrategy[Problem]:
    """Any of the problems."""
    linear = constants(path) | linear_denoisers(path) | gaussians(path) | polynomials(path)
    return linear | mixtures(path) | empiricals(path)


def states(
    batch: int | None = None, shape: Sequence[int] | None = None, scale: float = 1.0
) -> SearchStrategy[torch.Tensor]:
    """Normal states in float64, ``(B, *shape)``.

    Args:
        batch: `B`. None: 1 to 4.
        shape: Shape of a sample. None: of none to three dimensions, each of 1 to 4.
        scale: Standard deviation, in units of the data.
    """
    sizes = st.integers(1, 4) if batch is None else st.just(batch)
    shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple) if shape is None else st.just(tuple(shape))
    return st.builds(random_state, seeds(), sizes, shapes, st.just(scale))


@st.composite
def nested_states(draw: st.DrawFn, batch: int | None = None) -> Any:
    """States, and dicts, lists and tuples of them at most two deep, all of one batch.

    Args:
        draw: Given by Hypothesis.
        batch: Size of the batch. None: 1 to 4.
    """
    size = draw(st.integers(1, 4)) if batch is None else batch

    def around(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
        several = st.lists(inner, min_size=1, max_size=3)
        named = st.dictionaries(st.sampled_from(("image", "sound", "text")), inner, min_size=1)
        return several | several.map(tuple) | named

    leaf = states(size)
    return draw(leaf | around(leaf | around(leaf)))
