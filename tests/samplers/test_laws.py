"""Laws that every built-in sampler keeps."""

from __future__ import annotations

import pickle
from itertools import pairwise

import attrs
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import BARE, DEVICE, F64, SAMPLERS, Gaussian, Teacher, deterministic, few, grids, levels, state

import kdiff_core as kd
from kdiff_core.machine import Machine
from kdiff_core.path import as_path
from kdiff_core.plans import Combine
from kdiff_core.tracing import trace

paths = pytest.mark.parametrize("path", ["ve", "flow"])
every = pytest.mark.parametrize("name", SAMPLERS)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-11) -> bool:
    return float((a - b).norm()) <= tolerance * max(1.0, float(b.norm()))


def rounding(name: str, path: str) -> float:
    """What rounding may do: noise prediction cancels weights of 1e4 where a flow path begins."""
    return 1e-8 if name.startswith("dpm_solver") and path == "flow" else 1e-11


@every
@paths
@given(data=st.data())
@few
def test_eager_equals_plan(name, path, data):
    """A linear sampler run on tensors gives what its plan gives, to rounding, with the same noise."""
    sampler, grid = SAMPLERS[name], data.draw(grids(path))
    x, denoiser = state(), Gaussian(path)
    planned = sampler.run(denoiser, x, grid, seed=5)
    eager = _eager(sampler).run(denoiser, x, grid, seed=5)
    assert planned.info["traced"]
    assert not eager.info["traced"]
    assert planned.evaluations == eager.evaluations
    assert close(planned.x, eager.x, rounding(name, path))


def _eager(sampler):
    """The same sampler, declared not linear."""
    kind = type(sampler)
    eager = type(kind.__name__, (kind,), {"linear": False, "__slots__": ()})
    fields = {f.name: getattr(sampler, f.name) for f in attrs.fields(kind)}
    return eager(**fields)


@every
@paths
@given(data=st.data())
@few
def test_stepper_equals_engine_bit_for_bit(name, path, data):
    """Driven from outside, one model output at a time, a sampler makes the same bits."""
    sampler, grid = SAMPLERS[name], data.draw(grids(path))
    x, denoiser = state(), Gaussian(path)
    stepper = kd.Stepper(sampler, x, grid, path=path, seed=5)
    while not stepper.done:
        stepper.step(denoiser(stepper.x, stepper.sigma_tensor))
    assert torch.equal(stepper.x, sampler(denoiser, x, grid, seed=5))
    assert stepper.evaluation == stepper.plan.evaluations


@every
@paths
@given(data=st.data())
@few
def test_stop_and_resume_equal_one_run(name, path, data, tmp_path_factory):
    """A run that is stopped after any step, saved to a file and resumed makes the bits of one run."""
    sampler, grid = SAMPLERS[name], data.draw(grids(path))
    stop = data.draw(st.integers(1, len(grid) - 1))
    x, denoiser = state(), Gaussian(path)
    whole = sampler.run(denoiser, x, grid, seed=5)
    half = sampler.run(denoiser, x, grid, seed=5, stop=stop)
    file = tmp_path_factory.mktemp("resume") / "run.safetensors"
    half.checkpoint.save(file)
    after = sampler.run(denoiser, resume=kd.Checkpoint.load(file, device=DEVICE.type))
    assert torch.equal(after.x, whole.x)
    assert after.evaluations == whole.evaluations
    stepper = kd.Stepper.resume(half.checkpoint)
    while not stepper.done:
        stepper.step(denoiser(stepper.x, stepper.sigma_tensor))
    assert torch.equal(stepper.x, whole.x)


@every
@paths
@given(data=st.data())
@few
def test_same_sample_in_any_batch(name, path, data):
    """Sample i of seed 0 is the same, bit for bit, alone, in any order and in any part of the batch."""
    sampler, grid = SAMPLERS[name], data.draw(grids(path))
    x, denoiser = state(5), Gaussian(path)
    whole = sampler(denoiser, x, grid, seed=0)
    chosen = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True))
    part = sampler(denoiser, x[chosen], grid, noise=kd.get_noise("keyed", seed=0, index=chosen))
    assert torch.equal(part, whole[chosen])


@every
def test_random_state_and_inputs_untouched(name):
    """A run leaves the global random states and its inputs as they were."""
    sampler, x, grid = SAMPLERS[name], state(), levels("ve", 6)
    before, copy, cond = torch.get_rng_state(), x.clone(), np.random.get_state()[1].copy()
    sampler(Gaussian(), x, grid, seed=1)
    sampler(Gaussian(), x, grid)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], cond)
    assert torch.equal(x, copy)


@every
@paths
@given(data=st.data())
@few
def test_evaluations_as_planned(name, path, data):
    """The denoiser is called as often, and at the levels, as the plan says."""
    sampler, grid = SAMPLERS[name], data.draw(grids(path))
    seen, denoiser = [], Gaussian(path)

    def count(x, sigma):
        seen.append(float(sigma[0]))
        return denoiser(x, sigma)

    count.path = path
    result = sampler.run(count, state(), grid, seed=0)
    plan = sampler.plan(grid, path)
    assert result.evaluations == len(seen) == plan.evaluations
    assert seen == list(plan.evaluation_sigmas)
    assert plan.stochastic == (sampler.stochastic and bool(plan.noises))


@every
@paths
def test_plan_does_not_grow(name, path):
    """The operands of an update and the states alive do not grow with the number of steps."""
    sampler = SAMPLERS[name]
    short, long = (sampler.plan(levels(path, n), path) for n in (12, 60))
    assert (short.operands, short.buffers) == (long.operands, long.buffers)
    assert long.buffers <= sampler.memory + 6


@every
@paths
def test_live_buffers_are_the_plans_minimum(name, path, monkeypatch):
    """The machine never holds more states than the plan says are alive."""
    sampler, grid = SAMPLERS[name], levels(path, 12)
    most, plan = 0, sampler.plan(grid, path).increments()
    advance = Machine.advance

    def watch(self, until):
        nonlocal most
        found = advance(self, until)
        most = max(most, sum(r is not None for r in self.registers) + len(self._pool))
        return found

    monkeypatch.setattr(Machine, "advance", watch)
    sampler(Gaussian(path), state(), grid, seed=0)
    assert 0 < most <= plan.buffers + 1


@every
@paths
def test_gradients_flow_when_asked_for(name, path):
    """The gradient of the result with respect to x and to a condition is the finite difference."""
    sampler, grid, denoiser = SAMPLERS[name], levels(path, 4), Gaussian(path)

    def shifted(x, sigma, shift):
        return denoiser(x, sigma) + shift

    shifted.path = path
    x = state().requires_grad_()
    shift = torch.zeros((), dtype=F64, device=DEVICE, requires_grad=True)
    result = sampler(shifted, x, grid, seed=2, cond={"shift": shift})
    by_x, by_shift = torch.autograd.grad(result.sum(), (x, shift))
    step = 1e-4

    def total(dx, ds):
        with torch.no_grad():
            cond = {"shift": torch.tensor(ds, dtype=F64, device=DEVICE)}
            return float(sampler(shifted, x.detach() + dx, grid, seed=2, cond=cond).sum())

    assert float(by_x.sum()) == pytest.approx(
        (total(step, 0.0) - total(-step, 0.0)) / (2 * step), rel=1e-6, abs=1e-7
    )
    assert float(by_shift) == pytest.approx(
        (total(0.0, step) - total(0.0, -step)) / (2 * step), rel=1e-6, abs=1e-7
    )
    assert not sampler(Gaussian(path), state(), grid, seed=2).requires_grad


@every
@paths
def test_callback_once_a_step(name, path):
    """A callback comes once a step with its index, levels, states and denoised output, which are its own."""
    sampler, grid, seen = SAMPLERS[name], levels(path, 5), []
    denoiser = Gaussian(path)
    result = sampler.run(denoiser, state(), grid, seed=0, callback=seen.append, trajectory=True)
    assert [info.index for info in seen] == list(range(5))
    assert {info.total for info in seen} == {5}
    assert [(info.sigma, info.sigma_next) for info in seen] == list(pairwise(grid))
    for info, after in zip(seen, result.trajectory[1:], strict=True):
        assert info.sigma_hat >= info.sigma
        assert torch.equal(info.x_next, after)
        level = torch.full((3,), info.sigma_hat, dtype=F64)
        assert torch.equal(info.denoised, denoiser(info.x, level))
    assert torch.equal(seen[-1].x_next, result.x)
    assert [info.evaluations for info in seen][-1] == result.evaluations
    plain = sampler(denoiser, state(), grid, seed=0)
    assert torch.equal(plain, result.x)


ORDERED = {name: deterministic(s) for name, s in SAMPLERS.items() if not deterministic(s).stochastic}


@pytest.mark.parametrize("name", ORDERED)
@paths
@given(ratios=st.lists(st.floats(0.5, 2.0), min_size=3, max_size=3), lam=st.floats(-1.0, 1.0))
@few
def test_one_step_order_with_exact_history(name, path, ratios, lam):
    """The error of one step, given exact history on uneven steps, falls with the declared order plus one."""
    sampler, sizes = ORDERED[name], [0.01 / 2**k for k in range(4)]
    with mpmath.workdps(40):
        errors = [_one_step_error(sampler, path, ratios, lam, h) for h in sizes]
        slope = np.polyfit(np.log(sizes), [float(mpmath.log(e)) for e in errors], 1)[0]
    assert slope - 1 == pytest.approx(sampler.order, abs=0.3)


def _one_step_error(sampler, path, ratios, lam, h):
    """Error over four variances of a step of size `h` in log-SNR after steps of sizes ``ratio * h``."""
    ends = [lam + h, lam, *(lam - h * sum(ratios[: i + 1]) for i in range(sampler.memory))]
    grid = [as_path(path).sigma(mpmath.mpf(end)) for end in reversed(ends)]
    return mpmath.norm([Teacher(sampler, path, grid, v).last_step_error() for v in (0.01, 0.2, 1.0, 4.0)])


@every
@paths
@given(data=st.data())
@few
def test_exact_for_a_constant_denoiser(name, path, data):
    """If the denoiser is constant, a deterministic sampler moves exactly along the ray to it."""
    sampler, grid = deterministic(SAMPLERS[name]), data.draw(grids(path))
    if sampler.stochastic:
        return
    target, x = state(seed=1, scale=1.0), state()

    def constant(x, sigma):
        return target.clone()

    constant.path = path
    result = sampler(constant, x, grid)
    assert close(result, target + (x - target) * (grid[-1] / grid[0]), 10 * rounding(name, path))


@every
@paths
@pytest.mark.parametrize("number", [mpmath.mpf, lambda v: torch.tensor(v, dtype=F64, requires_grad=True)])
def test_one_definition_for_every_kind_of_number(name, path, number):
    """Traced on high-precision numbers or torch scalars, a sampler has the weights it has on floats."""
    sampler, grid = SAMPLERS[name], levels(path, 5)
    plan = trace(sampler, grid, as_path(path))
    again = trace(sampler, [number(level) for level in grid], as_path(path))
    assert len(list(plan.ops)) == len(list(again.ops))
    for a, b in zip(plan.ops, again.ops, strict=True):
        if isinstance(a, Combine):
            weights = {r: float(getattr(w, "data", w)) for r, w in b.terms}
            for register, weight in a.terms:
                assert weights[register] == pytest.approx(weight, rel=1e-9, abs=1e-12)


@every
@given(data=st.data())
@few
def test_scale_equivariance(name, data):
    """On VE, scaling data, noise levels and state together scales the result."""
    sampler, grid = SAMPLERS[name], data.draw(grids("ve"))
    if "churned" in name:
        return  # its range of levels is absolute
    factor = data.draw(st.floats(0.1, 10.0))
    small = Gaussian(variances=(0.01, 0.2, 1.0, 4.0), mean=0.3)
    large = Gaussian(variances=tuple(v * factor**2 for v in (0.01, 0.2, 1.0, 4.0)), mean=0.3 * factor)
    x, noise = state(), state(seed=9, scale=1.0)
    source = kd.noise_from(lambda a, b: noise)
    a = sampler(small, x, grid, noise=source)
    b = sampler(large, x * factor, [level * factor for level in grid], noise=source)
    assert close(b, a * factor, 1e-9)


@every
def test_parameters_round_trip(name):
    """A sampler is hashable, picklable, equal to its copy, prints itself and refuses changes."""
    sampler = SAMPLERS[name]
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    assert hash(attrs.evolve(sampler)) == hash(sampler)
    assert type(sampler).__name__ in repr(sampler)
    with pytest.raises(AttributeError):
        sampler.anything = 1


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_kept_and_close_to_float64(name, dtype):
    """States keep their dtype; float32 results are those of float64 to its precision."""
    grid = levels("ve", 10)
    noise = kd.noise_from(lambda a, b: state(seed=int(a * 1e4) % 1000, scale=1.0))
    x = state()
    result = SAMPLERS[name](Gaussian(), x.to(dtype), grid, noise=noise)
    assert result.dtype == dtype
    exact = SAMPLERS[name](Gaussian(), x, grid, noise=noise)
    if dtype == torch.float32:
        assert close(result.double(), exact, 3e-6)


@pytest.mark.parametrize("name", BARE)
@given(high=st.floats(1.0, 2e4), low=st.floats(1e-4, 0.5), steps=st.sampled_from([1, 2, 3, 10, 100]))
@few
def test_finite_on_extreme_grids(name, high, low, steps):
    """Huge ranges and any number of steps give a finite result."""
    grid = kd.get_schedule("karras")(steps, sigma_min=low, sigma_max=high)
    result = SAMPLERS[name](Gaussian(), state(scale=high), grid, seed=0)
    assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize("name", BARE)
def test_finite_in_a_thousand_steps(name):
    """A thousand steps run, on both paths, from the very beginning of a flow path too."""
    for path in ("ve", "flow"):
        grid = kd.get_schedule("karras")(1000, sigma_min=0.01, sigma_max=20.0 if path == "ve" else 1.0)
        assert bool(torch.isfinite(SAMPLERS[name](Gaussian(path), state(scale=1.0), grid, seed=0)).all())


@pytest.mark.parametrize("name", BARE)
def test_nested_states(name):
    """A dict of tensors of different shapes gives what its parts give alone, each with its own noise."""
    sampler, grid = SAMPLERS[name], levels("ve", 5)
    x = {"image": state(), "sound": (state(seed=4).reshape(3, 2, 2),)}
    gaussian = Gaussian(variances=0.7)

    def denoiser(x, sigma):
        return {"image": gaussian(x["image"], sigma), "sound": (gaussian(x["sound"][0], sigma),)}

    result = sampler(denoiser, x, grid, seed=3)
    alone = sampler(gaussian, x["image"], grid, seed=3)
    assert torch.equal(result["image"], alone)
    assert result["sound"][0].shape == (3, 2, 2)
    if not sampler.stochastic:
        assert torch.equal(result["sound"][0], sampler(gaussian, x["sound"][0], grid))
    eager = _eager(sampler)(denoiser, x, grid, seed=3)
    assert close(eager["sound"][0], result["sound"][0])


@pytest.mark.parametrize("name", BARE)
def test_describes_itself(name):
    """A sampler's docstring states its order and cites its source."""
    doc = type(SAMPLERS[name]).__doc__
    assert "order" in doc
    assert "arXiv" in doc or "k-diffusion" in doc
