"""Offset, pyramid, Perlin and coloured noise: the variance at each place, and how places are correlated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import F64

import kdiff_core as kd
from kdiff_core.errors import NoiseError

MANY = 4000
CASES = {
    "offset": kd.get_noise("offset", strength=0.7),
    "pyramid": kd.get_noise("pyramid", discount=0.8),
    "perlin": kd.get_noise("perlin", strength=2.0, cells=3),
    "pink": kd.get_noise("coloured"),
    "blue": kd.get_noise("coloured", exponent=-1.0),
}
SHAPES = [(1, 6), (2, 5, 7), (1, 3, 4, 5), (9,), ()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_each_place_has_unit_variance(name, shape):
    """At each single place mean, variance and fourth moment are those of a standard normal number."""
    drawn = CASES[name].noise(torch.empty(MANY, *shape, dtype=F64), 2.0, 1.0)
    assert drawn.shape == (MANY, *shape)
    places = math.prod(shape)
    # Of the most extreme of some places: 4 standard errors and what their number adds.
    bound = 4.0 + math.log(places)
    assert float(drawn.mean(0).abs().max()) < bound / math.sqrt(MANY)
    assert float((drawn.var(0) - 1).abs().max()) < bound * math.sqrt(2 / MANY)
    assert float(((drawn**4).mean(0) - 3).abs().max()) < bound * math.sqrt(96 / MANY)


@given(st.floats(0.0, 3.0))
@settings(max_examples=5)
def test_offset_is_shared_by_the_places_of_a_channel(strength):
    """Two places of a channel have the covariance s^2 / (1 + s^2), two channels none."""
    drawn = kd.get_noise("offset", strength=strength).noise(torch.empty(20_000, 2, 2, dtype=F64), 2.0, 1.0)
    found = torch.corrcoef(drawn.flatten(1).T)
    shared = strength**2 / (1 + strength**2)
    assert abs(float(found[0, 1]) - shared) < 5 / math.sqrt(20_000)
    assert abs(float(found[0, 2])) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("exponent", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_with_its_exponent(exponent):
    """The slope of the spectrum over the logarithm of the frequency is the exponent, with its sign turned."""
    source = kd.get_noise("coloured", exponent=exponent)
    drawn = source.noise(torch.empty(200, 1, 256, dtype=F64), 2.0, 1.0)
    power = torch.fft.rfft(drawn).abs().pow(2).mean((0, 1))[1:128].log()
    frequency = torch.arange(1, 128, dtype=F64).log()
    slope = torch.cov(torch.stack([frequency, power]))[0, 1] / frequency.var()
    assert abs(float(slope) + exponent) < 0.05


def test_white_is_white():
    """With nothing to add, and with exponent 0, the noise is the keyed white noise."""
    x = torch.empty(2, 3, 4, 5, dtype=F64)
    white = kd.KeyedNoise(3).noise(x, 2.0, 1.0)
    for name, options in (
        ("offset", {"strength": 0.0}), ("pyramid", {"depth": 0}), ("perlin", {"strength": 0.0}),
        ("coloured", {"exponent": 0.0}),
    ):  # fmt: skip
        found = kd.get_noise(name, seed=3, **options).noise(x, 2.0, 1.0)
        assert torch.allclose(found, white, rtol=0, atol=1e-14)


def test_coarser_levels_make_neighbours_alike():
    """Pyramid and Perlin noise correlate neighbours, and places far apart less."""
    for name in ("pyramid", "perlin"):
        drawn = CASES[name].noise(torch.empty(2000, 1, 32, dtype=F64), 2.0, 1.0)[:, 0]
        near = float((drawn[:, 8:24] * drawn[:, 9:25]).mean())
        far = float((drawn[:, 8:16] * drawn[:, 24:32]).mean())
        assert near > 0.3
        assert near > far + 0.1


def test_a_sampler_runs_with_it():
    """Sample 1 of a batch is what its seed alone gives."""
    x, grid = torch.ones(2, 1, 4, 4), [10.0, 3.0, 1.0, 0.0]

    def run(x, seed):
        source = kd.get_noise("pyramid", seed=seed)
        return kd.get_sampler("euler_ancestral")(lambda x, sigma: x * 0.5, x, grid, noise=source)

    assert torch.equal(run(x, [1, 2])[1], run(x[:1], 2)[0])
    with pytest.raises(NoiseError, match="batch of 2"):
        run(x, [1, 2, 3])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("offset", {"strength": -1.0}), ("pyramid", {"discount": 0.0}), ("pyramid", {"depth": -1}),
        ("perlin", {"cells": 0}), ("coloured", {"exponent": math.inf}), ("offset", {"seed": -1}),
    ],
)  # fmt: skip
def test_refusals(name, options):
    """Parameters out of their range are refused by name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        kd.get_noise(name, **options)
