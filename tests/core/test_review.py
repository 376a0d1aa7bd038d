"""Faults that a review found, each in its smallest form."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from attrs import frozen
from support import Gaussian, levels, state

import kdiff_core as kd
from kdiff_core import errors

GRID = levels("ve", 6)
D = Gaussian()


@frozen
class KeepsNoise(kd.StepSampler):
    """Correlates the noise of a step with that of the step before; order 1."""

    memory, stochastic = 1, True

    def step(self, ctx, x, sigma, sigma_next):
        noise = ctx.noise(sigma, sigma_next)
        ctx.keep(noise=noise)
        if ctx.past:
            noise = 0.8 * noise + 0.6 * ctx.past[0].noise
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next) + noise * (0.1 * sigma_next)


@frozen
class ReadsNoise(kd.StepSampler):
    """Evaluates the model on the noise of a step whose parts are asked for too; order 1."""

    stochastic = True

    def step(self, ctx, x, sigma, sigma_next):
        whole = ctx.noise(sigma, sigma_next)
        half = ctx.noise(sigma, (sigma + sigma_next) / 2)
        return ctx.denoise(whole, sigma) + 0.5 * half


@pytest.mark.parametrize("sampler", [KeepsNoise(), ReadsNoise()])
def test_noise_may_be_kept_and_evaluated(sampler):
    """Noise that is kept for the next step, or given to the model, is the same in a plan and eagerly."""

    class Eager(type(sampler)):
        __slots__ = ()
        linear = False

    for options in ({"seed": 1}, {"noise": kd.noise_from(lambda a, b: state(seed=int(a * 99), scale=1.0))}):
        planned = sampler.run(D, state(), GRID, **options)
        eager = Eager().run(D, state(), GRID, **options)
        assert planned.info["traced"]
        assert not eager.info["traced"]
        if "noise" in options or isinstance(sampler, KeepsNoise):
            assert torch.allclose(planned.x, eager.x, rtol=1e-10)


def test_every_edit_is_noticed():
    """A state that is replaced twice, so that its place in memory may come back, is taken over."""
    for _ in range(20):
        stepper = kd.Stepper("euler", state(), GRID)
        stepper.x = stepper.x * 0.5
        stepper.x = stepper.x + 1
        edited = stepper.x.clone()
        stepper.step(edited * 0)
        assert torch.allclose(stepper.x, edited * (GRID[1] / GRID[0]))


def test_the_order_of_keys_does_not_matter():
    """A model that returns its parts in another order is understood; other keys are refused."""
    x = {"a": state(), "b": state(seed=1)}
    sampler = kd.get_sampler("dpmpp_2m")
    turned = sampler(lambda x, s: {"b": D(x["b"], s), "a": D(x["a"], s) * 0}, x, GRID)
    assert torch.equal(turned["b"], sampler(D, x["b"], GRID))
    assert torch.equal(turned["a"], sampler(lambda x, s: D(x, s) * 0, x["a"], GRID))
    with pytest.raises(errors.DenoiserError, match="structure"):
        sampler(lambda x, s: {"c": x["a"], "b": x["b"]}, x, GRID)


def test_a_static_buffer_in_any_part_is_found_out():
    """One buffer for a later part of a nest is refused; eagerly, outputs that are needed later are copied."""
    static = torch.zeros_like(state())

    def one_buffer(x, sigma):
        return {"a": D(x["a"], sigma), "b": static.copy_(D(x["b"], sigma))}

    x = {"a": state(), "b": state(seed=1)}
    with pytest.raises(errors.DenoiserError, match="clone"):
        kd.get_sampler("dpmpp_2m")(one_buffer, x, GRID)

    class Eager(type(kd.get_sampler("dpmpp_2m"))):
        __slots__ = ()
        linear = False

    eager = Eager()(lambda x, sigma: static.copy_(D(x, sigma)), state(), GRID)
    assert torch.allclose(eager, kd.get_sampler("dpmpp_2m")(D, state(), GRID))


def test_after_a_refused_output_the_run_goes_on_where_it_was():
    """The checkpoint of a refused output repeats that model call; there is none where history was lost."""
    static, sampler = torch.zeros_like(state()), kd.get_sampler("dpmpp_2m")
    with pytest.raises(errors.DenoiserError) as caught:
        sampler(lambda x, sigma: static.copy_(D(x, sigma)), state(), GRID)
    assert caught.value.partial.checkpoint is None
    with pytest.raises(errors.DenoiserError) as caught:
        sampler(lambda x, sigma: D(x, sigma) if sigma[0] > 1 else None, state(), GRID)
    checkpoint = caught.value.partial.checkpoint
    assert checkpoint.evaluations == 2
    assert torch.equal(sampler.run(D, resume=checkpoint).x, sampler(D, state(), GRID))


def test_steps_without_operations_and_the_end_are_resumed():
    """Resuming after a step that did nothing, and after the last step, gives the run's result."""

    @frozen
    class Waits(kd.StepSampler):
        """Euler that does nothing on its third step; order 1."""

        def step(self, ctx, x, sigma, sigma_next):
            return x if ctx.index == 3 else ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)

    for sampler in (Waits(), kd.get_sampler("heun")):
        whole = sampler(D, state(), GRID)
        for stop in range(1, 7):
            seen = []
            at = sampler.run(D, state(), GRID, stop=stop, callback=lambda info: None).checkpoint
            assert torch.equal(sampler.run(D, resume=at, callback=seen.append).x, whole)
            assert [info.index for info in seen] == list(range(stop, 6))
            with pytest.raises(errors.ParameterError, match="already"):
                sampler.run(D, resume=at, stop=stop)


def test_a_kept_partial_result_is_the_callers_own():
    """What an error keeps does not change with the state that the caller gave."""

    def fails(x, sigma):
        raise MemoryError

    x, sampler = state(), kd.get_sampler("heun")
    with pytest.raises(MemoryError) as caught:
        sampler(fails, x, GRID)
    x.zero_()
    assert torch.equal(sampler.run(D, resume=caught.value.partial.checkpoint).x, sampler(D, state(), GRID))


@pytest.mark.parametrize(
    "function",
    [
        lambda d: torch.clamp(d, -1, 1),
        torch.tanh,
        lambda d: d**2,
        abs,
        lambda d: d[:, :2],
        lambda d: d > 0,
        lambda d: 1 / d,
        list,
        lambda d: np.float32(2.0) * d.square(),
    ],
)
def test_what_is_not_linear_is_found_out(function):
    """Torch's functions, powers, indexing and comparisons of a state send a sampler to the eager engine."""
    with pytest.raises(errors.TraceError, match="linear = False"):
        function(kd.Linear({0: 1.0}))
    assert type((kd.Linear({0: 1.0}) * np.float32(0.5)).terms[0]) is float


def test_a_kept_zero_is_zero():
    """A value that cancels to nothing can be kept and read."""

    @frozen
    class KeepsNothing(kd.StepSampler):
        """Euler; order 1."""

        memory = 1

        def step(self, ctx, x, sigma, sigma_next):
            denoised = ctx.denoise(x, sigma)
            ctx.keep(nothing=denoised * 0.0)
            nothing = ctx.past[0].nothing if ctx.past else 0
            return ctx.to(x, denoised + nothing, sigma, sigma_next)

    assert torch.equal(KeepsNothing()(D, state(), GRID), kd.get_sampler("euler")(D, state(), GRID))


def test_a_run_of_given_noise_is_not_resumed_with_a_seed():
    """Overlapping noises that a function gave cannot go on as pieces of a keyed path."""
    sampler, noise = kd.get_sampler("dpmpp_sde"), kd.noise_from(lambda a, b: state(scale=1.0))
    at = sampler.run(D, state(), GRID, noise=noise, stop=2).checkpoint
    with pytest.raises(errors.NoiseError, match="function"):
        sampler.run(D, resume=at, seed=1)
    assert torch.equal(sampler.run(D, resume=at, noise=noise).x, sampler(D, state(), GRID, noise=noise))


def test_start_takes_noise_and_data_as_they_are():
    """A function's noise is not written to; other shapes, levels off the path and two seeds are refused."""
    like, ones = torch.empty(2, 4), torch.ones(2, 4)
    assert torch.equal(kd.start([3.0, 0.0], like, noise=lambda a, b: ones), ones * 3)
    assert torch.equal(ones, torch.ones(2, 4))
    for options, kind in (
        ({"noise": lambda a, b: torch.ones(3, 5)}, errors.NoiseError),
        ({"noise": kd.KeyedNoise(1), "seed": 3}, errors.NoiseError),
        ({"x0": torch.ones(3, 4)}, errors.StateError),
        ({"path": "flow"}, errors.GridError),
    ):
        with pytest.raises(kind):
            kd.start([3.0, 0.0], like, **options)
    with pytest.raises(errors.StateError):
        kd.start([3.0, 0.0], torch.ones(2, 4, dtype=torch.int64))


def test_a_replay_that_fails_does_not_hide_the_fault():
    """If the run cannot be repeated to find a NaN, the error still says that it met one."""
    once = iter([state(scale=1.0)] * 5)

    def denoiser(x, sigma):
        return D(x, sigma) * (torch.nan if float(sigma[0]) == GRID[5] else 1.0)

    with pytest.raises(errors.NonFiniteError):
        kd.get_sampler("euler_ancestral")(
            denoiser, state(), GRID, noise=kd.noise_from(lambda a, b: next(once))
        )


@pytest.mark.parametrize("visited", [[], [3.0], [3.0, 0.0, 1.0, 0.0], [float("inf"), 1.0], [1.0, 1.0]])
def test_bad_levels_of_a_sampler_are_refused(visited):
    """Levels that `prepare` returns are checked like a grid, also where they may rise."""

    @frozen
    class Odd(kd.StepSampler):
        """Euler; order 1."""

        rises = True

        def prepare(self, grid, path, process):
            return visited

    with pytest.raises(errors.GridError):
        Odd().plan(GRID)


def test_a_sampler_that_can_change_is_traced_anew():
    """A sampler told apart by identity, not by its parameters, gets no plan of its earlier self."""

    class Plain(kd.StepSampler):
        """Euler with a factor; order 1."""

        __slots__ = ("k",)

        def step(self, ctx, x, sigma, sigma_next):
            return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next) * self.k

    sampler = Plain()
    sampler.k = 1.0
    first = sampler(D, state(), GRID[:3])
    sampler.k = 0.5
    assert not torch.equal(sampler(D, state(), GRID[:3]), first)


def test_a_used_plan_pickles_small():
    """What was worked out from a plan is not pickled with it."""
    sampler = kd.get_sampler("dpmpp_2m")
    plan = sampler.plan(levels("ve", 100))
    before = len(pickle.dumps(plan))
    sampler(D, state(8), levels("ve", 100))
    assert len(pickle.dumps(plan)) == before
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_default_device_changes_nothing():
    """Inside a context that puts new tensors elsewhere, noise and levels are made where they belong."""
    x, half = state(), state().bfloat16()
    sampler, grid = kd.get_sampler("heun", s_churn=7.0), levels("ve", 5)
    plain, noise = sampler(D, x, grid, seed=1), kd.KeyedNoise(1).noise(half, 2.0, 1.0)
    with torch.device("meta"):
        assert torch.equal(kd.KeyedNoise(1).noise(half, 2.0, 1.0), noise)
        assert torch.equal(sampler(D, x, levels("ve", 5), seed=1), plain)


def test_a_model_that_works_in_place_is_refused():
    """A model that changes its input, which is the caller's on the first call, is found out."""
    with pytest.raises(errors.DenoiserError, match="in place"):
        kd.get_sampler("euler")(lambda x, sigma: x.mul_(0.5), state(), GRID)


def test_non_finite_outputs_are_refused_by_a_stepper_too():
    """A NaN given to a stepper is refused with its step."""
    stepper = kd.Stepper("heun", state(), GRID)
    with pytest.raises(errors.NonFiniteError, match="step 0"):
        stepper.step(stepper.x * torch.nan)


def test_what_a_step_must_return_and_may_look_at():
    """A step without a return, and one that looks further back than its memory, say what is missing."""

    @frozen
    class Forgets(kd.StepSampler):
        """Nothing; order 1."""

        def step(self, ctx, x, sigma, sigma_next):
            ctx.denoise(x, sigma)

    @frozen
    class LooksBack(kd.StepSampler):
        """Nothing; order 1."""

        def step(self, ctx, x, sigma, sigma_next):
            return ctx.past[0].x

    with pytest.raises(errors.ParameterError, match="NoneType"):
        Forgets()(D, state(), GRID)
    with pytest.raises(IndexError, match="memory = n"):
        LooksBack()(D, state(), GRID)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim", {"eta": -1.0}),
        ("ddim", {"eta": float("nan")}),
        ("dpmpp_2m_sde", {"eta": float("inf")}),
        ("heun", {"s_churn": float("inf")}),
        ("lms", {"max_order": 9}),
        ("lms", {"max_order": True}),
        ("dpm_solver_3m", {"solver_order": 2.0}),
        ("dpmpp_sde", {"r": 0.0}),
        ("dpmpp_2m_sde", {"solver_type": "euler"}),
        ("euler_ancestral", {"solver": "dpmpp_2m"}),
    ],
)
def test_parameters_out_of_range_are_refused(name, options):
    """A parameter out of range is a ParameterError that names it, by name and from the class."""
    with pytest.raises(errors.ParameterError, match=next(iter(options))):
        kd.get_sampler(name, **options)
