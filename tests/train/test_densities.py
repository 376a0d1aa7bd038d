"""Densities: quantile, distribution function and log-density belong together, truncated or not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_train import keys

MADE = {
    "lognormal": {},
    "loglogistic": {},
    "loguniform": {},
    "split_lognormal": {"mode": 0.3, "std_low": 0.5, "std_high": 1.5},
    "cosine": {"sigma_data": 0.5},
    "cosine_interpolated": {"image_size": 128, "size_low": 32, "size_high": 256},
    "uniform": {"process": "flow"},
    "logit_normal": {"mean": 0.4, "std": 0.8},
    "mode": {"scale": 0.8},
}
CUT = {"sigma_min": 0.05, "sigma_max": 0.9}
ALL = [(name, cut) for name in MADE for cut in ({}, CUT)]
each = pytest.mark.parametrize(("name", "cut"), ALL, ids=[f"{n}{'-cut' if c else ''}" for n, c in ALL])


def density(name, cut):
    return kd.get_density(name, **MADE[name], **cut)


def test_every_density_is_here():
    """No density is left out of these tests."""
    assert {entry.name for entry in kd.list_densities() if entry.plugin.builtin} == MADE.keys()


@each
def test_the_quantile_is_the_inverse(name, cut):
    """The mass below the u-quantile is u, and levels rise with u, from end to end."""
    u = torch.linspace(1e-9, 1 - 1e-9, 1001, dtype=torch.float64)
    made = density(name, cut)
    sigma = made.sigma(u)
    assert bool((sigma.diff() >= 0).all())
    assert bool((sigma.diff()[100:900] > 0).all())
    torch.testing.assert_close(made.cdf(sigma), u, rtol=0, atol=2e-10)


@each
def test_the_density_is_the_slope(name, cut):
    """exp(log_pdf) is the slope of the distribution function."""
    made = density(name, cut)
    sigma = made.sigma(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))
    h = 1e-5 * sigma
    slope = (made.cdf(sigma + h) - made.cdf(sigma - h)) / (2 * h)
    torch.testing.assert_close(made.log_pdf(sigma).exp(), slope, rtol=2e-5, atol=0)


@each
def test_the_mass_is_one(name, cut):
    """The density integrates to 1, and is 0 outside its range."""
    made = density(name, cut)
    low, high = made.sigma(torch.tensor([1e-7, 1 - 1e-7], dtype=torch.float64)).log().tolist()
    logs = torch.linspace(low, high, 40_001, dtype=torch.float64)
    mass = torch.trapezoid((made.log_pdf(logs.exp()) + logs).exp(), logs)
    assert abs(float(mass) - 1) < 2e-4
    if cut:
        outside = torch.tensor([0.049, 0.901], dtype=torch.float64)
        assert made.log_pdf(outside).tolist() == [-math.inf, -math.inf]
        assert made.cdf(outside).tolist() == [0, 1]


@each
@given(numbers=st.lists(st.floats(1e-15, 1 - 1e-15), min_size=1, max_size=20))
def test_levels_are_in_range(name, cut, numbers):
    """Every number of (0, 1) gives a finite level above 0, within the range."""
    sigma = density(name, cut).sigma(torch.tensor(numbers, dtype=torch.float64))
    assert bool((sigma.isfinite() & (sigma > 0)).all())
    if cut:
        assert bool(((sigma >= 0.05) & (sigma <= 0.9)).all())


@each
def test_stratified_numbers_give_stratified_levels(name, cut):
    """Of a batch's levels one lies in each part of equal mass."""
    made = density(name, cut)
    sigma = made.sigma(keys.stratified(0, 0, 16, 16))
    assert (made.cdf(sigma) * 16).long().sort().values.tolist() == list(range(16))


def test_known_values():
    """Medians and quartiles are those of the formulas."""
    half = torch.tensor([0.5], dtype=torch.float64)
    assert float(kd.get_density("lognormal", mean=-1.2, std=1.2).sigma(half)) == pytest.approx(math.exp(-1.2))
    assert float(kd.get_density("loguniform", sigma_min=0.01, sigma_max=1).sigma(half)) == pytest.approx(0.1)
    quarter = torch.tensor([0.25, 0.75], dtype=torch.float64)
    expected = [math.tan(math.pi / 8), math.tan(3 * math.pi / 8)]
    assert kd.get_density("cosine").sigma(quarter).tolist() == pytest.approx(expected)
    assert kd.get_density("mode", scale=0.0).sigma(quarter).tolist() == pytest.approx([0.25, 0.75])
    logistic = kd.get_density("loglogistic", mean=0, scale=0.5).sigma(quarter)
    assert logistic.tolist() == pytest.approx([3**-0.5, 3**0.5])
    # Where both shifts are those of the image, the schedule is the plain cosine.
    same = kd.get_density("cosine_interpolated", image_size=64, size_low=64, size_high=64)
    assert same.sigma(quarter).tolist() == pytest.approx(expected)
    plain, split = kd.get_density("lognormal"), kd.get_density("split_lognormal")
    torch.testing.assert_close(plain.sigma(quarter), split.sigma(quarter), rtol=1e-12, atol=0)


def test_uniform_in_the_time_of_a_table():
    """On a table of levels the entry in the middle is the median."""
    process = kd.get_process("linear")
    found = kd.get_density("uniform", process="linear").sigma(torch.tensor([0.5], dtype=torch.float64))
    assert float(found) == pytest.approx(process.sigma(0.5), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lognormal", {"std": 0}, "std=0"),
        ("lognormal", {"sigma_min": 2, "sigma_max": 1}, "sigma_min=2.0 is not below sigma_max=1.0"),
        ("logit_normal", {"sigma_min": 1, "sigma_max": 2}, "no mass lies from 1.0 to 2.0"),
        ("mode", {"scale": 1.76}, "the levels do not rise"),
        ("cosine_interpolated", {"image_size": 64, "size_low": 1, "size_high": 24}, "the levels do not rise"),
        ("lognormal", {"maen": 1}, "did you mean 'mean'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    """What is out of range, or unknown, is refused with its name."""
    with pytest.raises(ParameterError, match=message):
        kd.get_density(name, **options)
