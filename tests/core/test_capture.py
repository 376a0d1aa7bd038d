"""Captured runs: the logic, recorded by something that replays Python; and on a GPU, where there is one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, F64, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core.captured import capture
from kdiff_core.errors import CapabilityError, NoiseError, NonFiniteError, ParameterError, StateError

SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "lms", "sa_solver", "euler_ancestral")


def replayed(function, warmup):
    """What a graph does, by calling the function: it reads the same memory again, and writes to the same."""
    for _ in range(warmup):
        function()
    outputs = [leaf.clone() for leaf in function()]

    def replay():
        for old, new in zip(outputs, function(), strict=True):
            old.copy_(new)

    return outputs, replay


def captured(sampler, denoiser, like, grid, **options):
    recorder = None if DEVICE.type == "cuda" else replayed
    return capture(sampler, denoiser, like, grid, recorder=recorder, **options)


def conditioned(x, sigma, shift=0.0, nested=None):
    out = x / (1 + sigma[:, None] ** 2) + shift
    return out if nested is None else out + nested["rows"][0]


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_replay_gives_the_bits_of_a_run(name, path):
    """New states and seeds give what an eager run gives, one after the other and the first one again."""
    sampler, grid, model = kd.get_sampler(name), levels(path, 6), Gaussian(path)
    run = captured(sampler, model, state(3), grid)
    for seed in (0, 1, 0):
        x = state(3, seed=seed)
        expected = sampler.run(model, x, grid, seed=seed)
        found = run.run(x, seed=seed)
        assert torch.equal(found.x, expected.x)
        assert found.evaluations == expected.evaluations
        assert found.info == expected.info


@few
@given(
    name=st.sampled_from(SAMPLERS),
    steps=st.integers(1, 6),
    batch=st.integers(1, 3),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_replays_do_not_see_each_other(name, steps, batch, seeds):
    """Whatever was replayed before, a replay gives the bits of a run."""
    sampler, grid, model = kd.get_sampler(name), levels("ve", steps), Gaussian("ve")
    run = captured(sampler, model, state(batch), grid)
    for seed in seeds:
        x = state(batch, seed=seed)
        assert torch.equal(run(x, seed=seed), sampler(model, x, grid, seed=seed))


def test_results_are_the_callers_own():
    """A later replay writes to no earlier result, and a replay not to the state that it was given."""
    grid, model = levels("ve", 4), Gaussian("ve")
    run, x = captured(kd.get_sampler("euler"), model, state(2), grid), state(2, seed=1)
    before, first = x.clone(), run(x)
    kept = first.clone()
    run(state(2, seed=2))
    assert torch.equal(first, kept)
    assert torch.equal(x, before)


def test_noise_is_drawn_outside_into_the_memory_of_the_graph():
    """After a replay each noise of the plan lies where the graph reads it, and nowhere else than before."""
    sampler, grid = kd.get_sampler("dpmpp_sde"), levels("ve", 4)
    run = captured(sampler, Gaussian("ve"), state(2), grid)
    places = {register: leaf.data_ptr() for register, [leaf] in run.noises.items()}
    x, source = state(2), kd.KeyedNoise(5)
    run(x, seed=5)
    for op in run.plan.noises:
        [found] = run.noises[op.out]
        expected = source.noise(x, op.sigma_from, op.sigma_to, op.stream, op.visit)
        assert torch.equal(found, expected)
        assert found.data_ptr() == places[op.out]
    assert len(run.noises) == len(run.plan.noises) > 4


def test_generators_and_functions_give_noise_too():
    """A source of the caller's own is asked as in a run, a function not for noise that is in pieces."""
    grid, x, model = levels("ve", 5), state(2), Gaussian("ve")
    for name in ("euler_ancestral", "dpmpp_sde"):
        sampler = kd.get_sampler(name)
        run = captured(sampler, model, x, grid)
        sources = [torch.Generator().manual_seed(3) for _ in range(2)]
        assert torch.equal(run(x, noise=sources[0]), sampler(model, x, grid, noise=sources[1]))
    function = kd.noise_from(lambda a, b: torch.full((2, 4), a - b, dtype=F64, device=DEVICE))
    with pytest.raises(NoiseError, match="captured in independent pieces"):
        run(x, noise=function)
    sampler = kd.get_sampler("euler_ancestral")
    run = captured(sampler, model, x, grid)
    assert torch.equal(run(x, noise=function), sampler(model, x, grid, noise=function))


def test_conditions_are_copied_to_where_the_graph_reads_them():
    """New conditions count, none means those of the capture, and the caller's own are not written to."""
    sampler, grid, x = kd.get_sampler("dpmpp_2m"), levels("ve", 5), state(3)
    first, second = (
        {"shift": torch.full((3, 1), v, dtype=F64, device=DEVICE), "nested": {"rows": [state(3, seed=n)]}}
        for n, v in ((1, 0.5), (2, -1.0))
    )
    run = captured(sampler, conditioned, x, grid, cond=first)
    expected = [sampler(conditioned, x, grid, cond=cond) for cond in (first, second)]
    before = first["shift"].clone()
    assert torch.equal(run(x, cond=second), expected[1])
    assert torch.equal(first["shift"], before)
    assert torch.equal(run(x), expected[0])
    first["shift"].fill_(7.0)
    assert torch.equal(run(x), expected[0]), "the conditions of the capture are copies"


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"shift": torch.zeros(2, 1)}, "captured with"),
        ({"shift": 0.5}, "which is fixed"),
        ({"shift": torch.zeros(3, 1, dtype=F64), "nested": None}, "structure"),
        ({}, "structure"),
    ],
)
def test_conditions_of_another_kind_are_refused(cond, message):
    """Shape, dtype, structure, and whatever is no tensor are those of the capture."""
    given_first = {"shift": torch.zeros(3, 1, dtype=F64, device=DEVICE)}
    run = captured(kd.get_sampler("euler"), conditioned, state(3), levels("ve", 3), cond=given_first)
    with pytest.raises(ParameterError, match=message):
        run(state(3), cond=cond)


def test_the_model_runs_while_it_is_captured_and_a_nest_is_a_state():
    """The model's Python is called for warm-up and capture; each replay stands for all calls."""
    calls = []

    def model(x, sigma):
        calls.append(len(sigma))
        return {key: value * 0.5 for key, value in x.items()}

    recorded = []

    def recorder(function, warmup):
        outputs, replay = replayed(function, warmup)
        recorded.append(len(calls))
        return outputs, replay

    x, grid = {"a": state(2), "b": state(2, 7, 1)}, levels("ve", 3)
    run = capture(kd.get_sampler("heun"), model, x, grid, warmup=2, recorder=recorder)
    assert recorded == [3 * run.plan.evaluations]
    expected = kd.get_sampler("heun")(model, x, grid)
    assert all(torch.equal(run(x)[key], expected[key]) for key in x)


def test_a_model_that_changes_its_input_is_found_while_it_is_captured():
    """The engine's checks of the model are those of a capture."""

    def model(x, sigma):
        return x.mul_(0.5)

    with pytest.raises(kd.KdiffError, match="in place"):
        captured(kd.get_sampler("heun"), model, state(2), levels("ve", 3))


def test_a_state_that_becomes_infinite_is_found():
    """The final state is looked at once."""

    def model(x, sigma):
        return x / (x.abs() < 100)

    run = captured(kd.get_sampler("euler"), model, state(2), levels("ve", 3))
    with pytest.raises(NonFiniteError, match="run it eagerly"):
        run(state(2) * 1000)


def test_without_a_gpu_capture_is_refused():
    """A state on the CPU is refused, with what works there."""
    with pytest.raises(CapabilityError, match=r"captured on CUDA.*on cpu.*compile='run'"):
        capture(kd.get_sampler("euler"), Gaussian("ve"), torch.zeros(2, 3), levels("ve", 3))


def test_a_sampler_without_a_plan_is_refused():
    """What decides while it runs cannot be captured."""
    with pytest.raises(CapabilityError, match=r"capture: DPMAdaptive.* has no plan"):
        captured(kd.get_sampler("dpm_adaptive"), Gaussian("ve"), state(2), [10.0, 1.0])


@pytest.mark.parametrize("option", ["callback", "progress", "trajectory", "stop", "resume"])
def test_what_needs_python_between_the_steps_is_refused(option):
    """A captured run takes no callback and the like."""
    run = captured(kd.get_sampler("euler"), Gaussian("ve"), state(2), levels("ve", 3))
    with pytest.raises(CapabilityError, match=f"{option}: a captured run has no Python"):
        run(state(2), **{option: print})


def test_a_state_of_another_kind_is_refused():
    """Shape, dtype, gradients and values are looked at before anything is copied."""
    run = captured(kd.get_sampler("euler"), Gaussian("ve"), state(2), levels("ve", 3))
    for x, message in (
        (state(3), "captured for"),
        (state(2).float(), "captured for"),
        (state(2).requires_grad_(), "gradient"),
        (state(2) * torch.inf, "infinite"),
    ):
        with pytest.raises(StateError, match=message):
            run(x)
    with pytest.raises(NoiseError, match="3 given for a batch of 2"):
        run(state(2), seed=[1, 2, 3])
    for warmup in (0, 1.5, True):
        with pytest.raises(ParameterError, match="warmup"):
            captured(kd.get_sampler("euler"), Gaussian("ve"), state(2), levels("ve", 3), warmup=warmup)
