"""Noise: keyed, bit-identical however it is asked for, independent, Brownian within a run."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, F64, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core.brownian import Visits
from kdiff_core.draw import StepNoise
from kdiff_core.errors import NoiseError, ParameterError

seeds = st.integers(0, 2**64 - 1)
sizes = st.integers(1, 40)


@given(seed=seeds, size=sizes, order=st.permutations(range(6)), cut=st.integers(1, 5))
def test_same_bits_for_any_batch_order_and_chunking(seed, size, order, cut):
    """Sample i is the same alone, in any order, in any chunk and after any other call."""
    like = torch.empty(6, size)
    whole = kd.KeyedNoise(seed).noise(like, 2.0, 1.0)
    assert torch.equal(kd.KeyedNoise(seed, index=order).noise(like, 2.0, 1.0), whole[list(order)])
    chunks = [
        kd.KeyedNoise(seed, index=part).noise(like[part], 2.0, 1.0) for part in (range(cut), range(cut, 6))
    ]
    assert torch.equal(torch.cat(chunks), whole)
    assert torch.equal(kd.KeyedNoise([seed] * 6, index=range(6)).noise(like, 2.0, 1.0), whole)
    assert torch.equal(kd.KeyedNoise([seed]).noise(like[:1], 2.0, 1.0), whole[:1])


@given(seed=seeds, size=sizes)
def test_every_part_of_the_key_matters(seed, size):
    """Seed, sample, stream, either end of the interval and the visit each change the noise."""
    like, base = torch.empty(1, size), kd.KeyedNoise(seed)
    draws = [
        base.noise(like, 2.0, 1.0),
        kd.KeyedNoise(seed ^ 2**40).noise(like, 2.0, 1.0),
        kd.KeyedNoise(seed, index=[1]).noise(like, 2.0, 1.0),
        base.noise(like, 2.0, 1.0, "other"),
        base.noise(like, np.nextafter(2.0, 3.0), 1.0),
        base.noise(like, 2.0, np.nextafter(1.0, 0.0)),
        base.noise(like, 2.0, 1.0, visit=1),
    ]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_any_memory_layout_and_dtype(dtype):
    """Strides do not change the numbers; half precision is the float32 noise, rounded."""
    like = torch.empty(2, 8, 4, 4, dtype=dtype)
    plain = kd.KeyedNoise(3).noise(like, 2.0, 1.0)
    strided = kd.KeyedNoise(3).noise(like.to(memory_format=torch.channels_last), 2.0, 1.0)
    assert torch.equal(plain, strided)
    if dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(plain, kd.KeyedNoise(3).noise(like.float(), 2.0, 1.0).to(dtype))


def test_the_same_bits_on_the_device():
    """The noise of a device is the CPU's, bit for bit, alone and within a run that prefetches it."""
    like, sampler, grid = torch.empty(2, 33), kd.get_sampler("dpmpp_sde"), levels("ve", 6)
    on_device = kd.KeyedNoise(5).noise(like.to(DEVICE), 2.0, 1.0)
    assert on_device.device.type == DEVICE.type
    assert torch.equal(on_device.cpu(), kd.KeyedNoise(5).noise(like, 2.0, 1.0))
    x = state()
    here, there = (sampler(Gaussian(), y, grid, seed=1).cpu() for y in (x.cpu(), x))
    assert torch.allclose(here, there, rtol=1e-11)


def test_unit_variance_and_independence():
    """Over 200,000 values: mean 0, variance 1, kurtosis 3, and no correlation between keys."""
    like = torch.empty(2, 100_000, dtype=F64)
    a = kd.KeyedNoise(0).noise(like, 2.0, 1.0)
    b = kd.KeyedNoise(0).noise(like, 1.0, 0.5)
    for draw in (*a, *b):
        assert abs(float(draw.mean())) < 4 / 100_000**0.5
        assert abs(float(draw.var()) - 1) < 4 * (2 / 100_000) ** 0.5
        assert abs(float((draw**4).mean()) - 3) < 4 * (96 / 100_000) ** 0.5
    pairs = torch.stack([*a, *b])
    correlation = torch.corrcoef(pairs) - torch.eye(4, dtype=F64)
    assert float(correlation.abs().max()) < 4.5 / 100_000**0.5


def test_close_seeds_are_unrelated():
    """A thousand consecutive seeds have as many different and uncorrelated noises."""
    like = torch.empty(1000, 64, dtype=F64)
    drawn = kd.KeyedNoise(list(range(1000))).noise(like, 2.0, 1.0)
    correlation = torch.corrcoef(drawn) - torch.eye(1000, dtype=F64)
    assert float(correlation.abs().max()) < 6.5 / 64**0.5


def test_seeds_that_differ_above_32_bits_differ():
    """All 64 bits of a seed count, of which torch's own CPU generator keeps 32."""
    like = torch.empty(1, 16)
    low, high = (kd.KeyedNoise(s).noise(like, 2.0, 1.0) for s in (5, 5 + 2**32))
    assert not torch.equal(low, high)
    same = [torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in (5, 5 + 2**32)]
    assert torch.equal(*same)


def test_the_same_bits_in_another_process():
    """Another process, started afresh, draws the same bits."""
    code = (
        "import torch, kdiff_core as kd\n"
        "print(kd.KeyedNoise(7).noise(torch.empty(2, 5, dtype=torch.float64), 2.0, 1.0).tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(answer.stdout) == kd.KeyedNoise(7).noise(torch.empty(2, 5, dtype=F64), 2.0, 1.0).tolist()


def test_start_noise_and_step_noise_differ():
    """The initial noise is no step's noise, does not depend on the schedule, and is scaled by its level."""
    like = torch.empty(2, 9)
    a, b = kd.start([4.0, 0.0], like, seed=1), kd.start([2.0, 1.0], like, seed=1)
    assert torch.equal(a, b * 2)
    assert not torch.equal(a / 4, kd.KeyedNoise(1).noise(like, 0.0, 0.0))
    x0 = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    image = kd.start([0.6, 0.0], like, path="flow", seed=1, x0=x0)
    assert torch.allclose(image, 0.4 * x0 + 0.6 * a / 4)


def test_overlapping_intervals_have_the_law_of_one_brownian_path():
    """Whatever the order of asking, increments over a step and parts of it have Brownian covariance."""
    like = torch.empty(1, 200_000, dtype=F64)
    intervals = [(4.0, 1.0), (4.0, 3.0), (3.0, 1.0), (3.5, 2.0)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        source = StepNoise(kd.KeyedNoise(0), like, [like], Visits(), 0)
        drawn = {i: source(*intervals[i], "step")[0] for i in order}
        for i, (a, b) in enumerate(intervals):
            for j, (c, d) in enumerate(intervals):
                overlap = max(0.0, min(a, c) - max(b, d))
                expected = overlap / ((a - b) * (c - d)) ** 0.5
                assert abs(float((drawn[i] * drawn[j]).mean()) - expected) < 0.012
        whole = drawn[1] * (1 / 3) ** 0.5 + drawn[2] * (2 / 3) ** 0.5
        assert torch.allclose(whole, drawn[0], atol=1e-12)


def test_output_variance_of_dpmpp_sde_needs_the_path():
    """On normal data ten steps of dpmpp_sde have 0.738 of the variance with the path, 0.490 without."""
    sigmas = kd.get_schedule("karras")(10, sigma_min=0.002, sigma_max=80.0)
    plan = kd.get_sampler("dpmpp_sde").plan(sigmas)
    assert _variance(plan) == pytest.approx(0.4903, abs=1e-4)
    assert _variance(plan.increments()) == pytest.approx(0.7384, abs=1e-4)


def _variance(plan, data=0.25):
    """Output over data variance of a plan on zero-mean normal data, propagated exactly."""
    from kdiff_core.plans import Evaluate, Noise

    sources = iter(np.eye(1 + len(plan.noises)))
    registers = {0: next(sources) * (data + plan.levels[0] ** 2) ** 0.5}
    for op in plan.ops:
        if isinstance(op, Evaluate):
            registers[op.outs[0]] = registers[op.x] * data / (data + op.sigma**2)
        elif isinstance(op, Noise):
            registers[op.out] = next(sources)
        else:
            registers[op.out] = sum(w * registers[r] for r, w in op.terms)
    return float((registers[plan.result] ** 2).sum()) / data


def test_noise_from_generators_and_callables():
    """Generators, one or one a sample, and functions of the interval serve as noise."""
    sampler, grid = kd.get_sampler("euler_ancestral"), levels("ve", 4)

    def run(noise):
        return sampler(Gaussian(), state(), grid, noise=noise)

    one = [run(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*one)
    many = run([torch.Generator().manual_seed(s) for s in (1, 2, 3)])
    alone = sampler(Gaussian(), state()[1:2], grid, noise=[torch.Generator().manual_seed(2)])
    assert torch.equal(many[1:2], alone)
    fixed = state(seed=2, scale=1.0)
    copy = fixed.clone()
    run(kd.noise_from(lambda a, b: fixed))
    assert torch.equal(fixed, copy)
    with pytest.raises(NoiseError, match="like the state"):
        run(kd.noise_from(lambda a, b: fixed[:, :2]))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "a", True, [1, -2]])
def test_bad_seeds_are_refused(seed):
    """A seed is an integer of 64 bits."""
    with pytest.raises((ParameterError, TypeError)):
        kd.KeyedNoise(seed)


def test_a_repeated_interval_is_another_visit():
    """A sampler that goes over the same levels twice gets fresh noise the second time."""
    from attrs import frozen

    @frozen
    class Twice(type(kd.get_sampler("euler_ancestral"))):
        """Goes down, up and down again; order 1."""

        rises = True

        def prepare(self, grid, path, process):
            return [*grid[:-1], *grid]

        def step(self, ctx, x, sigma, sigma_next):
            if sigma_next > sigma:
                return ctx.renoise(x, sigma, sigma_next, ctx.noise(sigma, sigma_next, "restart"))
            return super().step(ctx, x, sigma, sigma_next)

    plan = Twice().plan([4.0, 2.0, 1.0, 0.5])
    assert [n.visit for n in plan.noises if n.stream == "step"] == [0, 0, 1, 1, 0]
    assert bool(torch.isfinite(Twice()(Gaussian(), state(), [4.0, 2.0, 1.0, 0.5], seed=0)).all())
