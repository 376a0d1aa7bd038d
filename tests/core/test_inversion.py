"""Inversion: the round trip, the order of the plain one, samples apart from each other, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import F64, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.inversion import rising
from kdiff_core.testing.problems import Mixture
from kdiff_core.testing.strategies import gaussians, mixtures, paths, step_ratios

ONE_STEP = ("euler", "ddim", "heun", "dpm2", "dpmpp_2s", "dpmpp_3s", "res_2s", "rk4", "hochbruck_ostermann")
MULTISTEP = ("dpmpp_2m", "lms", "ipndm", "deis", "uni_pc", "res_multistep")
UP = levels("ve", 12)[:-1]


def grid(path, ratios, from_one=False):
    """As many levels as ratios; on flow the first may be 1."""
    found = levels(path, len(ratios), ratios=ratios)[:-1]
    return [1.0, *found[1:]] if from_one and path == "flow" else found


def data(problem, batch=3, seed=0):
    """Data of order one."""
    return state(batch, problem.dims, seed, scale=1.0)


def back(sampler, problem, x, sigmas, **options):
    """What a run makes of the noise that the data were inverted to."""
    return sampler(problem, kd.invert(sampler, problem, x, sigmas, **options), sigmas)


@few
@given(st.data(), st.sampled_from(ONE_STEP), paths(), st.booleans(), st.integers(0, 99))
def test_a_one_step_run_gives_the_data_back(draw, name, path, from_one, seed):
    """Each one-step solver on uneven grids gives the data of its inversion back to 1e-10, on both paths."""
    problem = draw.draw(gaussians(path) | mixtures(path))
    sigmas = grid(path, draw.draw(st.integers(6, 12).flatmap(step_ratios)), from_one)
    x = data(problem, seed=seed)
    assert (back(kd.get_sampler(name), problem, x, sigmas) - x).abs().max() < 1e-10


@few
@given(st.sampled_from(MULTISTEP), paths(), st.integers(0, 99))
def test_a_multistep_run_gives_the_data_back(name, path, seed):
    """The run of a multistep solver, solved as a whole, gives the data back to 1e-10."""
    problem = Mixture(path)
    x = data(problem, seed=seed)
    # Near the data, where its first outputs are extrapolated over, a flow must be followed to be inverted.
    sigmas = levels(path, 25)[5:-1]
    assert (back(kd.get_sampler(name), problem, x, sigmas) - x).abs().max() < 1e-10


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_the_step_into_zero_is_inverted_where_it_can_be(name, path):
    """On a grid to 0 the run, which ends with D, gives back data that the model can give."""
    problem, sampler = Gaussian(path), kd.get_sampler(name)
    x = data(problem)
    assert (back(sampler, problem, x, levels(path, 12)) - x).abs().max() < 1e-10


def test_data_that_the_model_cannot_give_are_refused_with_advice():
    """Data outside of what D can give at the lowest level are an error that says to leave the 0 out."""

    def bounded(x, sigma):
        return torch.tanh(x)

    x = torch.full((1, 2), 3.0, dtype=F64)
    with pytest.raises(errors.ConvergenceError, match="leave the 0 out"):
        kd.invert("euler", bounded, x, [1.0, 0.5, 0.0], max_iterations=20)
    assert torch.allclose(back(kd.get_sampler("euler"), bounded, x, [1.0, 0.5]), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize(("name", "most"), [("euler", 8), ("heun", 8), ("rk4", 8), ("dpmpp_2m", 25)])
def test_no_more_evaluations_are_spent_than_promised(name, most, path):
    """On a mixture a few evaluations for each of the run's are enough: the iteration is accelerated."""
    problem, count = Mixture(path), []

    def counted(x, sigma):
        count.append(len(x))
        return problem(x, sigma)

    counted.path = path
    sigmas = levels(path, 25)
    kd.invert(name, counted, data(problem), sigmas)
    assert len(count) <= most * kd.plan(name, sigmas, path).evaluations


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("rk4", 4)])
def test_the_plain_inversion_has_the_samplers_order(name, order, path):
    """Half the step divides the error of the plain inversion by two to the order."""
    problem = Mixture(path)
    x, found = data(problem), []
    for steps in (40, 80):
        sigmas = levels(path, steps + 1)[:-1]
        end = kd.invert(name, problem, x, sigmas, exact=False)
        found.append((end - problem.exact(x, sigmas[-1], sigmas[0])).abs().max().item())
    assert abs(math.log2(found[0] / found[1]) - order) < 0.35


def test_the_plain_inversion_is_the_samplers_run_on_rising_levels():
    """It is the run of a rising grid, a 0 left out, and what Euler's formula gives."""
    problem, x = Gaussian(), data(Gaussian())
    end, level = x, torch.ones(3, dtype=F64)
    for a, b in zip(UP[::-1][:-1], UP[::-1][1:], strict=True):
        end = end + (end - problem(end, level * a)) * ((b - a) / a)
    for sigmas in (UP, [*UP, 0.0]):
        found = kd.invert("euler", problem, x, sigmas, exact=False)
        assert torch.allclose(found, end, rtol=1e-13, atol=0)
    assert torch.equal(kd.get_sampler("euler")(problem, x, kd.Grid.rising(UP[::-1])), found)


def test_a_flow_path_is_gone_up_to_one():
    """Log-SNR solvers come to sigma = 1, which is infinite for them, and near the flow's end."""
    problem = Mixture("flow")
    x, exact = data(problem), problem.exact(data(problem), 0.05, 1.0)
    for name in ("dpmpp_2m", "dpmpp_3s", "deis", "uni_pc", "dpm_solver_3s", "heun", "rk4", "res_2s"):
        found = []
        for steps in (19, 38, 76):
            sigmas = [1.0 - 0.95 * i / steps for i in range(steps + 1)]
            found.append((kd.invert(name, problem, x, sigmas, exact=False) - exact).abs().max())
        assert found[2] < 0.35 * found[1] < 0.35 * found[0]
    assert list(rising(sigmas, kd.FLOW))[-3:] == [sigmas[1], 0.9999, 1.0]


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
@pytest.mark.parametrize("exact", [True, False])
def test_samples_do_not_depend_on_their_neighbours(name, exact):
    """A sample alone is inverted to the same bits as in a batch with one that is much harder."""
    problem = Mixture()
    x = torch.cat([data(problem), 30 * data(problem, 1, 5)])
    whole = kd.invert(name, problem, x, UP, exact=exact)
    for i in range(len(x)):
        assert torch.equal(kd.invert(name, problem, x[i : i + 1], UP, exact=exact)[0], whole[i])


def test_nests_conditions_and_float32():
    """A nest of two shapes is inverted with its condition, in float32 to float32's precision."""

    def pair(x, sigma, shift):
        first = Gaussian()(x["a"] - shift, sigma) + shift
        return {"a": first, "b": Gaussian(covariance=2.0)(x["b"], sigma)}

    x = {"a": data(Gaussian()).float(), "b": torch.ones(3, 2, 2)}
    sampler, cond = kd.get_sampler("heun"), {"shift": 0.5}
    noise = kd.invert(sampler, pair, x, UP, cond=cond)
    again = sampler(pair, noise, UP, cond=cond)
    assert noise["b"].shape == (3, 2, 2)
    assert noise["b"].dtype == torch.float32
    for key, value in x.items():
        assert (again[key] - value).abs().max() < 1e-3
    assert (noise["a"] - kd.invert(sampler, pair, x, UP, cond={"shift": 0.0})["a"]).abs().max() > 0.1


def test_editing_changes_what_the_condition_says_and_keeps_the_rest():
    """Inverted under one condition and sampled under another, data move to it and keep the rest."""

    def towards(x, sigma, place):
        wide = Gaussian(covariance=(0.01, 4.0), mean=(0.0, 0.0))
        offset = torch.zeros_like(x)
        offset[:, 0] = place
        return wide(x - offset, sigma) + offset

    x = torch.tensor([[1.05, -2.0], [0.9, 3.0]], dtype=F64)
    noise = kd.invert("heun", towards, x, UP, cond={"place": 1.0})
    edited = kd.get_sampler("heun")(towards, noise, UP, cond={"place": -1.0})
    assert (edited[:, 0] + 1.0).abs().max() < 0.2
    assert (edited[:, 1] - x[:, 1]).abs().max() < 1e-9


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("euler_ancestral", errors.CapabilityError, "draws noise"),
        ("dpmpp_2m_sde", errors.CapabilityError, "draws noise"),
        ("restart", errors.CapabilityError, "draws noise"),
        ("dpm_adaptive", errors.TraceError, "no plan"),
        ("euler_cfg_pp", errors.CapabilityError, "uncond"),
        ("no such", errors.UnknownNameError, "no such"),
    ],
)
def test_what_cannot_be_inverted_is_refused(name, kind, message, exact):
    """Samplers with noise or without a plan, and those that the model cannot serve, are refused."""
    with pytest.raises(kind, match=message):
        kd.invert(name, Gaussian(), data(Gaussian()), UP, exact=exact)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"tolerance": 0.0}, errors.ParameterError, "tolerance"),
        ({"max_iterations": 0}, errors.ParameterError, "max_iterations"),
        ({"sigmas": UP[::-1]}, errors.GridError, "rises"),
        ({"sigmas": [1.0, 0.0], "exact": False}, errors.GridError, "two"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, errors.StateError, "float"),
        ({"max_iterations": 1}, errors.ConvergenceError, "off by"),
    ],
)
def test_bad_arguments_are_refused(options, kind, message):
    """Tolerances, grids and states out of range are refused; too few iterations say how far it came."""
    given = {"x": data(Gaussian()), "sigmas": UP, **options}
    with pytest.raises(kind, match=message):
        kd.invert("euler", Gaussian(), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [([1.0, 0.5], "rises above"), ([0.0, 1.0], "begins above 0"), ([1.0, 1.0], "repeats"), ([1.0], "two")],
)
def test_rising_grids_are_checked(given, message):
    """A rising grid that falls, repeats, begins at 0 or has one level is refused; a part of one rises too."""
    with pytest.raises(errors.GridError, match=message):
        kd.Grid.rising(given)
    assert tuple(kd.Grid.rising([0.1, 0.5, 1.0])[1:]) == (0.5, 1.0)
