"""Every built-in sampler passes the kit that third parties run; and what the engine owes to each of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from support import F64, NAMES, SAMPLERS, VARIANTS, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core.machine import Machine
from kdiff_core.testing import parametrize_with_checks
from kdiff_core.testing.variants import model_for
from kdiff_samplers.tableaux import TABLEAUX

paths = pytest.mark.parametrize("path", ["ve", "flow"])
every = pytest.mark.parametrize("name", SAMPLERS)


@parametrize_with_checks([*(n for n in NAMES if n not in TABLEAUX), *VARIANTS.values()], kind="sampler")
def test_laws(check):
    """Each built-in sampler, and each variant of another kind, keeps each law of the kit."""
    check()


@parametrize_with_checks(TABLEAUX, kind="sampler", examples=3)
def test_laws_of_runge_kutta_methods(check):
    """Each Runge-Kutta method keeps each law; they share one step, so a few examples of each are enough."""
    check()


@every
@paths
def test_live_buffers_are_the_plans_minimum(name, path, monkeypatch):
    """The machine never holds more states than the plan says are alive."""
    sampler, grid = SAMPLERS[name], levels(path, 12)
    if not sampler.linear:
        pytest.skip("it has no plan")
    most, plan = 0, sampler.plan(grid, path).increments()
    advance = Machine.advance

    def watch(self, until):
        nonlocal most
        found = advance(self, until)
        most = max(most, sum(r is not None for r in self.registers) + len(self._pool))
        return found

    monkeypatch.setattr(Machine, "advance", watch)
    sampler(model_for(sampler, Gaussian(path)), state(), grid, seed=0)
    assert 0 < most <= plan.buffers + 1


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if not isinstance(s, kd.AdaptiveSampler)])
@paths
def test_callback_once_a_step(name, path):
    """A callback comes once a step with its index, levels, states and denoised output, which are its own."""
    sampler, grid, seen = SAMPLERS[name], levels(path, 5), []
    denoiser, visited = model_for(sampler, Gaussian(path)), [*sampler.levels(grid, path)]
    result = sampler.run(denoiser, state(), grid, seed=0, callback=seen.append, trajectory=True)
    assert [info.index for info in seen] == list(range(len(visited) - 1))
    assert {info.total for info in seen} == {len(visited) - 1}
    assert [(info.sigma, info.sigma_next) for info in seen] == list(pairwise(visited))
    for info, after in zip(seen, result.trajectory[1:], strict=True):
        assert info.sigma_hat >= info.sigma
        assert torch.equal(info.x_next, after)
        if info.sigma_next < info.sigma:  # a step up, of restart, evaluates nothing
            level = torch.full((3,), info.sigma_hat, dtype=F64)
            assert torch.equal(info.denoised, denoiser(info.x, level))
    assert torch.equal(seen[-1].x_next, result.x)
    assert [info.evaluations for info in seen][-1] == result.evaluations
    plain = sampler(denoiser, state(), grid, seed=0)
    assert torch.equal(plain, result.x)
