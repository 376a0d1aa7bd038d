"""Samplers with steps of their own: against another integrator, and in distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from support import F64, Gaussian, state

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.testing.measure import slope
from kdiff_core.testing.problems import Mixture, random_state
from kdiff_core.testing.teacher import one_step_error
from kdiff_core.testing.variants import declaring
from kdiff_samplers.adaptive import Adaptive

PAIRS = ("adaptive", "adaptive_heun2", "adaptive_dopri5", "adaptive_tsit5", "adaptive_dop853")
ENDS = {"ve": (20.0, 0.05), "flow": (20.0 / 21.0, 0.05 / 1.05)}


def result_of(index):
    """A step that is one of the results of a try."""
    return lambda self, ctx, x, sigma, sigma_next: self.attempt(ctx, x, sigma, sigma_next)[index]


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize(
    ("name", "orders"),
    [("dpm_adaptive", (3, 2)), ("adaptive", (3, 2)), ("adaptive_heun2", (2, 1)), ("adaptive_dopri5", (5, 4))],
)
def test_orders_of_both_results(name, orders, path):
    """The results of a try have the declared order, and the one that the order of the error implies."""
    sampler = kd.get_sampler(name)
    assert (sampler.order, sampler.error_order) == (orders[0], orders[1] + 1.0)
    sizes = [0.01 / 2**k for k in range(3)]
    for index, order in enumerate(orders):
        step = declaring(sampler, step=result_of(index))
        found = slope(sizes, [one_step_error(step, path, h, [], 0.3) for h in sizes]) - 1.0
        assert abs(found - order) < 0.2


def test_order_two_of_dpm_adaptive():
    """With ``order=2`` the results are of order 2 and 1."""
    sampler, sizes = kd.get_sampler("dpm_adaptive", order=2), [0.01, 0.005]
    for index, order in enumerate((2, 1)):
        step = declaring(sampler, step=result_of(index))
        assert abs(slope(sizes, [one_step_error(step, "ve", h, [], 0.3) for h in sizes]) - 1.0 - order) < 0.2


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_agrees_with_another_integrator(path, per):
    """With a tight tolerance the pair of Dormand and Prince meets scipy's DOP853 on a mixture."""
    problem, (first, last) = Mixture(path=path), ENDS[path]
    x = random_state(0, batch=3, shape=(2,), scale=1.0) * first
    sampler = kd.get_sampler("adaptive_dopri5", rtol=1e-9, atol=1e-9, per=per, max_evaluations=10_000)
    found = sampler(problem, x, (first, last))

    def slopes(sigma, y):
        flat = torch.tensor(y).reshape(3, 2)
        return ((flat - problem(flat, torch.full((3,), float(sigma), dtype=F64))) / sigma).flatten().numpy()

    exact = solve_ivp(slopes, (first, last), x.flatten().numpy(), "DOP853", rtol=1e-10, atol=1e-11).y[:, -1]
    assert np.abs(found.flatten().numpy() - exact).max() < 2e-8


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("space", ["ratio", "velocity", "data", "noise"])
def test_pairs_work_from_pure_noise_in_each_space(name, space):
    """From sigma = 1 on a flow path to 0 each pair comes near the exact result, whatever it integrates."""
    problem, x = Gaussian("flow"), state(scale=1.0)
    sampler = kd.get_sampler(name, space=space, rtol=1e-3, atol=1e-3)
    found = sampler(problem, x, (1.0, 0.02))
    assert float((found - problem.exact(x, 1.0, 0.02)).abs().max()) < 2e-2


def test_only_pairs_are_taken():
    """A tableau without embedded weights, an implicit one or an unknown name is refused with the pairs."""
    for tableau in ("rk4", "sdirk4", 5):
        with pytest.raises(errors.ParameterError, match=r"no explicit pair.*'dormand_prince5'"):
            Adaptive(tableau=tableau)
    with pytest.raises(errors.ParameterError, match="dormand_prince5"):
        Adaptive(tableau="dormand_prince")


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("adaptive_sde", {"rtol": 0.01, "atol": 0.005}), ("dpm_adaptive", {"eta": 1.0, "rtol": 0.01})],
)
def test_noise_keeps_the_distribution(name, options, per, path):
    """With noise and rejected tries the samples have the mean and variance of the data."""
    problem, (first, last), shape = Gaussian(path, 0.3, 0.5), ENDS[path], (150, 64)
    (mean, covariance), (goal, spread) = problem.marginal(first), problem.marginal(last)
    unit = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    x = float(mean[0]) + unit * float(covariance[0, 0]) ** 0.5
    found = kd.get_sampler(name, per=per, **options).run(problem, x, (first, last), seed=0)
    away = (found.x - float(goal[0])) / float(spread[0, 0]) ** 0.5
    assert np.sum(found.info["rejected"]) > 0
    assert abs(float(away.mean())) * away.numel() ** 0.5 < 4.5
    assert abs(float((away**2).mean()) - 1.0) * (away.numel() / 2) ** 0.5 < 4.5


def test_names_of_the_hosts():
    """What hosts call the adaptive solver leads to it."""
    names = ("comfyui:dpm_adaptive", "k_diffusion:sample_dpm_adaptive", "DPM adaptive", "k_dpm_ad")
    assert {kd.get_sampler(name) for name in (*names, "a1111:DPM adaptive")} == {
        kd.get_sampler("dpm_adaptive")
    }
