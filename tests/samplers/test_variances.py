"""The two variances of DDPM, and the sampler of gamma and mu."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import F64, few, interval_noise

import kdiff_core as kd
from kdiff_core.path import as_path
from kdiff_core.testing import Gaussian
from kdiff_core.testing.measure import Moments, output_moments

paths = pytest.mark.parametrize("path", ["ve", "flow"])


def levels(path, highest=8.0):
    """Three uneven steps above 0."""
    return [as_path(path).from_ratio(ratio) for ratio in (highest, 2.0, 0.9, 0.3)]


def distance(sampler, problem, grid):
    """How far mean and covariance of the output are from the exact ones."""
    exact = Moments(*problem.marginal(grid[-1]))
    return output_moments(sampler.plan(grid, problem.path), problem).distance(exact)


@paths
@given(std=st.floats(0.2, 3.0), start=st.sampled_from([3.0, 20.0, float("inf")]))
@few
def test_the_larger_variance_is_exact_on_normal_data(path, std, start):
    """However few the steps: the posterior of normal data of that deviation is sampled; the smaller errs."""
    if path == "ve" and start == float("inf"):
        start = 50.0
    problem, grid = Gaussian(path, 0.4, std**2), levels(path, start)
    large = kd.get_sampler("ddpm", variance="fixed_large", sigma_data=std)
    assert distance(large, problem, grid) < 1e-12
    assert distance(kd.get_sampler("ddpm"), problem, grid) > 1e-3


@paths
def test_the_smaller_variance_is_exact_on_one_point(path):
    """Its posterior is that of data without a variance, on which the larger errs."""
    problem, grid = Gaussian(path, 0.4, 1e-12), levels(path)
    assert distance(kd.get_sampler("ddpm"), problem, grid) < 1e-6
    assert distance(kd.get_sampler("ddpm", variance="fixed_large"), problem, grid) > 1e-2


@given(first=st.floats(1.0, 20.0), ratio=st.floats(0.1, 0.9))
@few
def test_the_variances_are_beta_and_its_posterior(first, ratio):
    """In VP coordinates they are beta and (1 - abar') / (1 - abar) beta, Ho et al. 2020, eq. 7."""
    bars = [1 / (1 + sigma**2) for sigma in (first, first * ratio)]
    beta = 1 - bars[0] / bars[1]
    expected = {"fixed_large": beta, "fixed_small": (1 - bars[1]) / (1 - bars[0]) * beta}
    for variance, value in expected.items():
        plan = kd.get_sampler("ddpm", variance=variance).plan([first, first * ratio])
        weights = dict(plan.ops[-1].terms)
        noise = next(op.out for op in plan.ops if type(op).__name__ == "Noise")
        assert weights[noise] ** 2 * bars[1] == pytest.approx(value, rel=1e-9)


@paths
@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({}, "ddim"),
        ({"mu": 0.5}, "ddpm"),
        ({"gamma": 2.0}, "gradient_estimation"),
    ],
)
def test_gamma_and_mu_have_the_known_samplers(path, options, other):
    """(1, 0) is DDIM, (1, 1/2) DDPM and (2, 0) gradient estimation, on both paths."""
    x, problem = torch.linspace(-1, 1, 8, dtype=F64).reshape(2, 4), Gaussian(path)
    runs = [
        sampler.run(problem, x, levels(path), noise=interval_noise(x)).x
        for sampler in (kd.get_sampler("gamma_mu", **options), kd.get_sampler(other))
    ]
    assert float((runs[0] - runs[1]).abs().max()) < 1e-12


def test_sde_dpm_solver_without_noise_is_dpm_solver():
    """With eta 0 it is the multistep DPM-Solver of its order and type."""
    x, grid = torch.linspace(-1, 1, 8, dtype=F64).reshape(2, 4), levels("ve")
    for solver_type in ("midpoint", "heun"):
        still = kd.get_sampler("sde_dpm_solver_2m", eta=0, solver_type=solver_type)
        plain = kd.get_sampler("dpm_solver_2m", solver_type=solver_type)
        assert float((still(Gaussian("ve"), x, grid) - plain(Gaussian("ve"), x, grid)).abs().max()) < 1e-12
