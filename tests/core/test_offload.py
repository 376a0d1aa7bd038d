"""History on the CPU: not a bit changes, and the device holds as many states as the plan predicts.

There need be no GPU: the parking of a run is replaced by one whose CPU is a place that is not counted.
"""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core import engine
from kdiff_core.errors import CapabilityError
from kdiff_core.estimate import Tracker, live_states
from kdiff_core.offload import Parking, parking_for

# Most of them read several earlier points; restart and heun hold several states within a step.
SAMPLERS = (
    "lms", "deis", "unipc", "sa_solver", "dpmpp_3m_sde", "ipndm_v", "dpmpp_2m", "dpm_solver_v3", "restart",
    "dpmpp_sde", "heun",
)  # fmt: skip
SIZE = 4096


@frozen
class Keeping(kd.StepSampler):
    """Keeps a sum, which is memory of the run's own, and writes the next state over it."""

    memory = 1

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        ctx.keep(mean=0.5 * x + 0.5 * denoised)
        if not ctx.past:
            return ctx.to(x, denoised, sigma, sigma_next)
        again = ctx.denoise(ctx.past[0].mean, sigma)
        return 0.6 * ctx.past[0].mean + 0.2 * x + 0.1 * denoised + 0.1 * again


class Elsewhere(Parking):
    """A CPU that is told apart from the device although both are one: what it holds is marked."""

    def __init__(self, tracker=None):
        super().__init__(DEVICE)
        self.tracker = tracker
        self.parked = self.fetched = 0

    def park(self, leaves):
        if self.tracker is not None:
            self.tracker.paused = True
        hosts = [leaf.clone() for leaf in leaves]
        for host in hosts:
            host.parked = True
        if self.tracker is not None:
            self.tracker.paused = False
            self.tracker.know(*hosts)
        self.parked += 1
        return hosts

    def fetch(self, leaf):
        assert leaf.parked
        self.fetched += 1
        return leaf.clone()


def test_memory_on_the_cpu_is_not_written_over(parked):
    """A sum that a step kept is fetched for a model call, and no update's result goes to its memory."""
    grid, x = levels("ve", 6), state(3)
    found = Keeping()(model_on("ve"), x, grid, offload=True)
    assert parked.parked
    assert torch.equal(found, Keeping()(model_on("ve"), x, grid))


@pytest.fixture
def parked(monkeypatch):
    """Runs with offload=True park elsewhere; returns the parking."""
    parking = Elsewhere()
    monkeypatch.setattr(engine, "parking_for", lambda device, wanted: parking if wanted else None)
    return parking


def model_on(path, seen=None):
    """A denoiser that refuses a state from elsewhere."""
    inner = Gaussian(path)

    def model(x, sigma):
        assert not hasattr(x, "parked"), "the model was given a state that is on the CPU"
        if seen is not None:
            seen()
        return inner(x, sigma)

    model.path = path
    return model


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_offload_changes_no_bit(name, path, parked):
    """A run whose history waits on the CPU ends in the bits of one that keeps it; with a callback too."""
    sampler, grid, x = kd.get_sampler(name), levels(path, 7), state(3)
    expected, seen, again = (sampler.run(model_on(path), x, grid, seed=3), [], [])
    found = sampler.run(model_on(path), x, grid, seed=3, offload=True)
    assert torch.equal(found.x, expected.x)
    if sampler.memory > 1:
        assert 0 < parked.parked <= parked.fetched
    sampler.run(model_on(path), x, grid, seed=3, callback=seen.append)
    sampler.run(model_on(path), x, grid, seed=3, callback=again.append, offload=True)
    for one, other in zip(seen, again, strict=True):
        pairs = zip((one.x, one.denoised, one.x_next), (other.x, other.denoised, other.x_next), strict=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


@few
@given(name=st.sampled_from(SAMPLERS), steps=st.integers(1, 9), path=st.sampled_from(["ve", "flow"]))
def test_offload_changes_no_bit_at_any_number_of_steps(name, steps, path):
    """As before, at any number of steps."""
    sampler, grid, x = kd.get_sampler(name), levels(path, steps), state(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "parking_for", lambda device, wanted: Elsewhere() if wanted else None)
        found = sampler(model_on(path), x, grid, seed=3, offload=True)
    assert torch.equal(found, sampler(model_on(path), x, grid, seed=3))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("offload", [False, True])
def test_the_device_holds_the_states_that_the_plan_predicts(name, offload, monkeypatch):
    """States alive at each model call, and at most, are those of `live_states`, to the last one."""
    sampler, grid = kd.get_sampler(name), levels("ve", 8)
    expected = live_states(sampler.plan(grid).increments(), offload)
    tracker, at_calls = Tracker(), []
    monkeypatch.setattr(engine, "parking_for", lambda device, wanted: Elsewhere(tracker) if wanted else None)

    def model(x, sigma):
        at_calls.append(tracker.current)
        return torch.mul(x, 0.5)

    with tracker:
        x = torch.full((1, SIZE), 10.0)
        at_calls.clear()
        sampler(model, x, grid, seed=0, offload=offload)
    size = x.numel() * x.element_size()
    assert (max(at_calls) // size, tracker.peak // size) == expected


@pytest.mark.parametrize("name", ["lms", "deis", "unipc", "ipndm_v", "dpmpp_2m"])
def test_during_a_model_call_of_a_multistep_solver_two_states_are_on_the_device(name):
    """With offload a model call shares the device with its input and the caller's state only."""
    plan = kd.plan(name, levels("ve", 8))
    assert live_states(kd.plan("euler", levels("ve", 8)), offload=True) == (2, 3)
    assert live_states(plan, offload=True)[0] == 2
    assert live_states(plan)[0] > 2
    assert live_states(plan, offload=True)[1] < live_states(plan)[1] or name == "dpmpp_2m"


@pytest.mark.parametrize("name", ["lms", "dpmpp_3m_sde", "sa_solver"])
def test_a_run_stops_and_goes_on_with_offload(name, parked):
    """A checkpoint of such a run holds states of the device, and either kind of run goes on from it."""
    sampler, grid, x = kd.get_sampler(name), levels("ve", 7), state(3)
    expected = sampler(model_on("ve"), x, grid, seed=3)
    stopped = sampler.run(model_on("ve"), x, grid, seed=3, offload=True, stop=4)
    for offload in (False, True):
        went_on = sampler.run(model_on("ve"), resume=stopped.checkpoint, offload=offload)
        assert torch.equal(went_on.x, expected)


def test_a_nest_is_parked_leaf_by_leaf(parked):
    """Each tensor of a nest goes to the CPU and comes back."""
    sampler, grid = kd.get_sampler("lms"), levels("ve", 6)
    x = {"a": state(2, 3), "b": state(2, 5, 1)}

    def model(x, sigma):
        return {key: value / (1 + sigma[:, None] ** 2) for key, value in x.items()}

    found, expected = (sampler(model, x, grid, offload=wanted) for wanted in (True, False))
    assert parked.fetched
    assert all(torch.equal(found[key], expected[key]) for key in x)


def test_gradients_go_through_the_cpu(parked):
    """The gradient is that of a run that keeps its history where it is."""
    grads = []
    for offload in (False, True):
        x = state(2).requires_grad_()
        kd.get_sampler("lms")(model_on("ve"), x, levels("ve", 6), offload=offload).pow(2).sum().backward()
        grads.append(x.grad)
    assert parked.fetched
    assert torch.equal(*grads)


def test_on_the_cpu_nothing_is_moved():
    """A run that is on the CPU already keeps its history where it is."""
    assert parking_for(torch.device("cpu"), True) is None
    assert parking_for(torch.device("cuda"), False) is None
    assert isinstance(parking_for(torch.device("cuda"), True), Parking)


def test_parking_moves_there_and_back():
    """What is fetched is what was parked; its host copy is memory of its own."""
    parking, leaf = Parking(DEVICE), state(2)
    [host] = parking.park([leaf])
    assert host.is_cpu
    assert host.data_ptr() != leaf.data_ptr()
    assert host.is_pinned() is (DEVICE.type == "cuda")
    assert torch.equal(parking.fetch(host), leaf)


def test_offload_needs_a_plan():
    """A sampler without a plan, and a run that repeats its steps, are refused before the model is called."""
    with pytest.raises(CapabilityError, match=r"offload: .*no plan"):
        kd.get_sampler("dpm_adaptive").run(None.__class__, state(2), [10.0, 1.0], offload=True)
    with pytest.raises(CapabilityError, match="offload: with checkpoint_gradients"):
        kd.get_sampler("lms").run(
            model_on("ve"), state(2), levels("ve", 3), offload=True, checkpoint_gradients=True
        )


def test_on_a_gpu_offload_changes_no_bit():
    """The real thing: pinned memory and copies that nothing waits for."""
    if DEVICE.type != "cuda":
        pytest.skip("needs --kdiff-device cuda")
    for name in SAMPLERS:
        sampler, grid, x = kd.get_sampler(name), levels("ve", 9), state(3, 10_000)
        expected = sampler(model_on("ve"), x, grid, seed=3)
        assert torch.equal(sampler(model_on("ve"), x, grid, seed=3, offload=True), expected)
