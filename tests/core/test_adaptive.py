"""Adaptive samplers: the loop over tries, its errors, steps for each sample, noise that is not redrawn."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from support import F64, Gaussian, few, state

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.draw import PathNoise
from kdiff_core.noise import GeneratorNoise, KeyedNoise
from kdiff_core.numerics import exp, expm1, log, phi, sqrt
from kdiff_core.path import FLOW, VE
from kdiff_core.state import Nest
from kdiff_core.testing.variants import Function

GRID = (10.0, 0.05, 0.0)


@frozen
class Heun(kd.AdaptiveSampler):
    """Heun's method over Euler's; order 2."""

    order, error_order = 2, 2.0

    def attempt(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        euler = ctx.to(x, denoised, sigma, sigma_next)
        both = (denoised + ctx.denoise(euler, sigma_next)) / 2.0
        return ctx.to(x, both, sigma, sigma_next), euler


@frozen
class Walk(kd.AdaptiveSampler):
    """A Brownian motion in sigma, whose tries are rejected where the noise is large; order 1."""

    atol: float = 1.0
    rtol: float = 0.0
    h_init: float = 0.7
    order, error_order, stochastic = 1, 1.0, True

    def attempt(self, ctx, x, sigma, sigma_next):
        middle = (sigma + sigma_next) * 0.5
        first, second = ctx.noise(sigma, middle), ctx.noise(middle, sigma_next)
        scale = sqrt(sigma - middle)
        x_next = x + (first + second) * scale
        return x_next, x_next + first * (scale * 1.5)


@frozen
class Outer(kd.StepSampler):
    """Takes a step of an adaptive sampler, which has none to give; order 1."""

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.advance(Heun(), x, sigma, sigma_next)


def constant(x, sigma):
    return torch.zeros_like(x)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.floats(0.1, 0.9), st.integers(0, 3))
@few
def test_functions_of_levels_take_one_for_each_sample(levels, part, k):
    """Each function of levels gives for a vector what it gives for its elements, bit for bit."""
    vector = torch.tensor(levels, dtype=F64)
    for function in (exp, expm1, log, sqrt, lambda v: phi(k, -v), lambda v: phi(k, -3.0 * v)):
        assert function(vector).tolist() == [function(v) for v in levels]
    for path in (VE, FLOW):
        one = (path.alpha, path.lambda_, path.ratio, path.from_ratio, path.inner_lambda)
        for function in (*one, lambda v, p=path: p.sigma(-v)):
            found = function(vector)
            expected = [function(v) for v in levels]
            assert (found.tolist() if isinstance(found, torch.Tensor) else [found] * len(levels)) == expected
        for function in (path.ancestral_down, path.ratio_down, path.inner_lambda):
            third = (0.3,) if function != path.inner_lambda else ()
            expected = [function(v, v * part, *third) for v in levels]
            assert function(vector, vector * part, *third).tolist() == expected


def test_a_nest_takes_a_number_for_each_sample():
    """States times a vector are each sample times its number, from either side, in the state's dtype."""
    image, sound = state(3, 4), state(3, 2, seed=1).to(torch.bfloat16)
    nest, vector = Nest([image, sound], [image, sound]), torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    for found in (nest * vector, vector * nest, nest / (1.0 / vector)):
        assert torch.equal(found.leaves[0], image * vector[:, None])
        assert torch.equal(found.leaves[1], sound * vector[:, None].to(torch.bfloat16))
        assert found.leaves[1].dtype == torch.bfloat16


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_accepted_steps_are_steps_of_the_run(per):
    """Callback, trajectory, levels and counts agree, and the last step is D of the state before."""
    seen = []
    sampler = Heun(per=per)
    result = sampler.run(Gaussian(), state(), GRID, seed=0, callback=seen.append, trajectory=True)
    info, levels = result.info, result.info["levels"]
    assert levels[0] == 10.0
    assert levels[-2:] == (0.05, 0.0)
    assert len(result.trajectory) == len(levels) == len(seen) + 1
    assert [i.index for i in seen] == list(range(len(seen)))
    assert [(i.sigma, i.sigma_next) for i in seen] == list(pairwise(levels))
    assert all(i.total <= len(seen) for i in seen)
    assert seen[-1].total == len(seen)
    for step, after in zip(seen, result.trajectory[1:], strict=True):
        assert torch.equal(step.x_next, after)
    assert torch.equal(result.x, Gaussian()(result.trajectory[-2], torch.full((3,), 0.05, dtype=F64)))
    assert seen[-1].evaluations == result.evaluations
    if per == "batch":
        assert info["accepted"] == len(levels) - 2
        assert result.evaluations == 2 * (info["accepted"] + info["rejected"]) + 1
    else:
        tries = [a + r for a, r in zip(info["accepted"], info["rejected"], strict=True)]
        assert info["sample_evaluations"] == [2 * count + 1 for count in tries]
        assert result.evaluations == max(info["sample_evaluations"])
        for own, accepted in zip(info["sample_levels"], info["accepted"], strict=True):
            assert len(own) == accepted + 2
            assert all(a > b for a, b in pairwise(own))


@given(st.integers(0, 100), st.sampled_from(["float32", "float64", "bfloat16"]), st.booleans())
@few
def test_a_sample_does_not_depend_on_its_neighbours(seed, dtype, stochastic):
    """With steps per sample each sample is the same, bit for bit, alone and beside others."""
    sampler = Walk(per="sample") if stochastic else Heun(per="sample")
    x = state(4, seed=seed).to(getattr(torch, dtype))
    whole = sampler.run(Gaussian(), x, GRID, noise=KeyedNoise(seed))
    for i in range(4):
        alone = sampler.run(Gaussian(), x[i : i + 1], GRID, noise=KeyedNoise(seed, index=[i]))
        assert torch.equal(alone.x[0], whole.x[i])
        assert alone.info["sample_levels"][0] == whole.info["sample_levels"][i]


def test_a_finished_sample_is_left_alone():
    """A sample that needs few steps is at its end while others go on, and is asked the same until then."""
    x = torch.tensor([[0.0], [1.0]], dtype=F64)
    asked = []

    def denoise(x, sigma):
        asked.append(sigma.clone())
        return 2.0 * torch.tanh(4.0 * x)

    result = Heun(rtol=1e-3, atol=1e-3).run(Function("ve", denoise), x, (10.0, 0.5))
    few_, many = result.info["sample_evaluations"]
    assert few_ < many == result.evaluations == len(asked)
    assert {float(level[0]) for level in asked[few_:]} == {
        float(level[0]) for level in asked[few_ - 2 : few_]
    }


def test_nests_share_their_steps():
    """A nest with two equal parts gives each of them what it gives alone, and keeps its structure."""
    x = state()
    model = Function(
        "ve", lambda x, sigma: {"a": Gaussian()(x["a"], sigma), "b": (Gaussian()(x["b"][0], sigma),)}
    )
    both = Heun().run(model, {"a": x, "b": (x,)}, GRID)
    alone = Heun().run(Gaussian(), x, GRID)
    assert torch.allclose(both.x["a"], alone.x, rtol=1e-12)
    assert torch.equal(both.x["a"], both.x["b"][0])


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_the_bound_on_evaluations_holds(per):
    """No more calls than `max_evaluations` are made, and what was reached is kept on the error."""
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return Gaussian()(x, sigma)

    with pytest.raises(errors.StepSizeError, match=r"max_evaluations=9 .* above sigma=0.05") as caught:
        Heun(per=per, max_evaluations=9).run(Function("ve", denoise), state(), GRID)
    assert len(calls) <= 9
    partial = caught.value.partial
    assert partial.evaluations == len(calls)
    assert partial.info["levels"][-2:] == (0.05, 0.0)
    needed = Heun(per=per).run(Gaussian(), state(), GRID).evaluations
    assert Heun(per=per, max_evaluations=needed).run(Gaussian(), state(), GRID).evaluations == needed
    with pytest.raises(errors.StepSizeError):
        Heun(per=per, max_evaluations=needed - 1).run(Gaussian(), state(), GRID)


def test_an_exception_in_the_middle_keeps_what_was_reached():
    """A callback that raises finds the state and the levels so far on its exception."""
    seen = []

    def stop(info):
        seen.append(info)
        if info.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        Heun().run(Gaussian(), state(), GRID, callback=stop, trajectory=True)
    partial = caught.value.partial
    assert torch.equal(partial.x, seen[-1].x_next)
    assert len(partial.trajectory) == 4
    assert partial.info["levels"][:4] == (*(i.sigma for i in seen), seen[-1].sigma_next)


def test_values_that_are_not_finite_are_located():
    """NaN of the model is reported with the level at which it came."""
    model = Function("ve", lambda x, sigma: torch.where(sigma[:, None] < 1.0, math.nan, x * 0.5))
    with pytest.raises(errors.NonFiniteError, match=r"the model output at sigma=0\.\d+"):
        Heun(per="batch").run(model, state(), GRID)
    with pytest.raises(errors.NonFiniteError, match=r"the model output at sigma=0\.\d+ to"):
        Heun(per="sample").run(model, state(), GRID)


def test_a_model_that_jumps_is_an_error():
    """Where the step size shrinks to nothing the run stops with the level."""
    noisy = torch.Generator().manual_seed(0)
    model = Function("ve", lambda x, sigma: 1e6 * torch.randn(x.shape, generator=noisy, dtype=F64))
    with pytest.raises(errors.StepSizeError, match="the step size has shrunk"):
        Heun(rtol=0.0, atol=1e-12, max_evaluations=10_000).run(model, state(), GRID)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": -1.0}, "rtol"),
        ({"atol": 0.0}, "atol"),
        ({"h_init": 0.0}, "h_init"),
        ({"accept_safety": 1.5}, "accept_safety"),
        ({"per": "image"}, "'sample', 'batch'"),
        ({"max_evaluations": 0}, "max_evaluations"),
    ],
)
def test_parameters_are_checked(options, message):
    """What makes no sense is refused when the sampler is made."""
    with pytest.raises(errors.ParameterError, match=message):
        Heun(**options)


def test_what_needs_fixed_steps_is_refused():
    """Plans, stops, wrapping modifiers and rising grids are refused with the reason."""
    with pytest.raises(errors.TraceError, match="no plan"):
        Heun().plan(GRID)
    with pytest.raises(errors.CapabilityError, match="no plan"):
        Heun().run(Gaussian(), state(), GRID, stop=1)
    with pytest.raises(errors.CapabilityError, match="chooses its own steps"):
        Outer().run(Gaussian(), state(), GRID)


def test_grids_of_one_level():
    """From a level straight to 0 there is nothing to choose: the result is D."""
    result = Heun().run(Gaussian(), state(), (10.0, 0.0))
    assert torch.equal(result.x, Gaussian()(state(), torch.full((3,), 10.0, dtype=F64)))
    assert result.evaluations == 1
    assert result.info["levels"] == (10.0, 0.0)


def test_tighter_tolerances_come_nearer():
    """The error falls with the tolerances, to a third at least for each tenth, on both controls."""
    problem, x = Gaussian(), state(scale=10.0)
    for per in ("sample", "batch"):
        found = []
        for tolerance in (1e-2, 1e-3, 1e-4):
            sampler = Heun(rtol=tolerance, atol=tolerance, per=per, max_evaluations=20_000)
            found.append(
                float((sampler(problem, x, (10.0, 0.05)) - problem.exact(x, 10.0, 0.05)).abs().max())
            )
        assert found[2] < found[1] / 3 < found[0] / 9
        assert found[2] < 1e-3


def path_noise(count, levels, seed=0):
    leaves = [torch.zeros(count, 1, dtype=F64)]
    source = GeneratorNoise((torch.Generator().manual_seed(seed),))
    return PathNoise(source, leaves[0], leaves, torch.tensor(levels, dtype=F64))


def numbers(*values):
    return torch.tensor(values, dtype=F64)


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=5, unique=True), st.integers(0, 100))
@few
def test_increments_of_the_path_add_up(parts, seed):
    """Whatever was asked before, and in whatever order, increments over parts add up."""
    noise = path_noise(4, [2.0], seed)
    levels = [2.0 - part for part in parts]
    values = [noise(numbers(2.0), numbers(level), "step")[0] * (2.0 - level) ** 0.5 for level in levels]
    noise.begin()
    ends = sorted(zip(levels, values, strict=True), key=lambda pair: -pair[0])
    for (a, value), (b, other) in pairwise(ends):
        if a - b > 1e-3:
            step = noise(numbers(a), numbers(b), "step")[0] * (a - b) ** 0.5
            assert torch.allclose(value + step, other, atol=1e-9)
    noise.advance(torch.tensor([True]), numbers(ends[0][0]))
    rest = noise(numbers(ends[0][0]), numbers(ends[-1][0]), "step")[0] * (ends[0][0] - ends[-1][0]) ** 0.5
    assert torch.allclose(rest, ends[-1][1] - ends[0][1], atol=1e-9)


def test_the_path_is_a_brownian_motion():
    """Increments after a try, a shorter one and an accepted part are independent and of unit variance."""
    count = 200_000
    noise = path_noise(count, [3.0])
    noise(numbers(3.0), numbers(0.5), "step")
    noise.begin()
    noise(numbers(3.0), numbers(1.7), "step")
    first = noise(numbers(3.0), numbers(2.4), "step")[0]
    noise.advance(torch.tensor([True]), numbers(2.4))
    parts = [first]
    for a, b in ((2.4, 2.0), (2.0, 1.7), (1.7, 1.1), (1.1, 0.5), (0.5, 0.2)):
        noise.begin()
        parts.append(noise(numbers(a), numbers(b), "step")[0])
        noise.advance(torch.tensor([True]), numbers(b))
    covariance = np.cov(torch.cat(parts, 1).T.numpy())
    bar = 4.5 / count**0.5
    assert abs(covariance - np.eye(len(parts))).max() < bar * 2**0.5


def test_rejection_does_not_distort_the_noise():
    """A walk whose steps are rejected where their noise is large has the mean and variance of any other."""
    count = 5_000
    source, x = torch.Generator().manual_seed(0), torch.zeros(count, 1, dtype=F64)
    result = Walk().run(Function("ve", constant), x, (4.0, 1.0), noise=source)
    unit = result.x / 3.0**0.5
    assert sum(result.info["rejected"]) > count / 4
    assert abs(float(unit.mean())) * count**0.5 < 4.5
    assert abs(float((unit**2).mean()) - 1.0) * (count / 2) ** 0.5 < 4.5


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_a_function_of_the_interval_is_asked_for_each(per):
    """Noise from a function is that of each sample's own interval, whole, as in other runs."""
    asked = []

    def function(a, b):
        asked.append((a, b))
        return torch.tensor([[0.3], [0.9]], dtype=F64) * math.sin(a + b)

    x = torch.tensor([[0.0], [5.0]], dtype=F64)
    Walk(per=per).run(Function("ve", constant), x, (4.0, 1.0), noise=kd.noise_from(function))
    assert all(4.0 >= a > b >= 1.0 for a, b in asked)


def test_noise_behind_or_upwards_is_refused():
    """A try has noise ahead of it only."""
    noise = path_noise(1, [1.0])
    for a, b in ((2.0, 0.5), (0.5, 0.7)):
        with pytest.raises(errors.NoiseError, match="does not lie ahead"):
            noise(numbers(a), numbers(b), "step")
