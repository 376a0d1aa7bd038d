"""The stepper: states that the host edits between evaluations are taken over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, SAMPLERS, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, DenoiserError, ParameterError

GRID = levels("ve", 6)


def drive(sampler, edit=None, **options):
    """Run a stepper; `edit(stepper)` may change its state before each model call."""
    stepper = kd.Stepper(sampler, state(), GRID, seed=1, **options)
    while not stepper.done:
        x = edit(stepper) if edit else None
        seen = stepper.x if x is None else x
        stepper.step(Gaussian()(seen, stepper.sigma_tensor), x)
    return stepper.x


@pytest.mark.parametrize("name", SAMPLERS)
@given(step=st.integers(0, 5))
@few
def test_an_edit_at_a_steps_start_is_a_new_start(name, step):
    """For a sampler without memory, editing the state where a step begins is starting from that state."""
    sampler = SAMPLERS[name]
    # Churn depends on the number of steps, the first and the last level on where a run begins and ends.
    changed = len(sampler.levels(GRID)) != len(GRID) or name == "heunpp2"
    if sampler.memory or sampler.needs or changed or "churned" in name or not sampler.linear:
        return
    change = state(seed=8, scale=0.1)
    first = [True]

    def edit(stepper):
        if stepper.index == step and first[0]:
            first[0] = False
            return stepper.x + change
        return None

    edited = drive(sampler, edit)
    before = sampler.run(Gaussian(), state(), GRID, seed=1, trajectory=True).trajectory[step]
    again = sampler(Gaussian(), before + change, GRID[step:], seed=1)
    assert torch.allclose(edited, again, rtol=1e-10, atol=1e-10)


def test_an_edit_of_a_stage_is_what_the_model_sees_and_is_added_to_the_end():
    """At a stage the model sees the edited state, and the same difference is added to the step's end."""
    change, seen = state(seed=8, scale=0.1), []

    def constant(x, sigma):
        return torch.zeros_like(x)

    sampler = kd.get_sampler("heun")
    stepper = kd.Stepper(sampler, state(), [2.0, 1.0])
    stepper.step(constant(stepper.x, None))
    stage = stepper.x
    seen.append(stage)
    end = stepper.step(constant(stage, None), stage + change)
    assert torch.allclose(end, state() / 2 + change)


def test_edits_in_place_are_noticed():
    """An edit in place of the state handed out is taken over like a new state."""

    def in_place(stepper):
        if stepper.index == 3 and stepper.sigma == GRID[3]:
            stepper.x.mul_(0.5)

    def new(stepper):
        return stepper.x * 0.5 if stepper.index == 3 and stepper.sigma == GRID[3] else None

    for name in ("dpmpp_2m", "heun", "euler_ancestral", "lms"):
        sampler = kd.get_sampler(name)
        assert torch.equal(drive(sampler, in_place), drive(sampler, new))
        assert not torch.equal(drive(sampler), drive(sampler, new))


def test_churn_sees_an_edit_of_the_churned_state():
    """Where churn raised the level before the first evaluation, an edit replaces the raised state."""
    sampler = kd.get_sampler("euler", s_churn=30.0)

    def edit(stepper):
        return torch.zeros_like(stepper.x) if stepper.index == 5 else None

    zero = torch.zeros(3, 4, dtype=torch.float64, device=DEVICE)
    level = torch.full((3,), sampler.plan(GRID).evaluation_sigmas[-1], dtype=torch.float64)
    assert torch.allclose(drive(sampler, edit), Gaussian()(zero, level))


def test_interleaved_steppers_do_not_disturb_each_other():
    """Two runs of one sampler, stepped in turn, give what each gives alone."""
    sampler = kd.get_sampler("dpmpp_sde")
    runs = [kd.Stepper(sampler, state(seed=s), GRID, seed=s) for s in (1, 2)]
    while not runs[0].done:
        for run in runs:
            run.step(Gaussian()(run.x, run.sigma_tensor))
    for s, run in zip((1, 2), runs, strict=True):
        assert torch.equal(run.x, sampler(Gaussian(), state(seed=s), GRID, seed=s))


def test_a_stepper_stops_and_resumes_between_evaluations():
    """A checkpoint inside a step goes on with the stage that comes next."""
    for name in ("heun", "dpmpp_sde", "dpm_solver_3s"):
        sampler = kd.get_sampler(name)
        first = kd.Stepper(sampler, state(), GRID, seed=1)
        for _ in range(4):
            first.step(Gaussian()(first.x, first.sigma_tensor))
        second = kd.Stepper.resume(first.checkpoint())
        assert second.evaluation == 4
        assert second.index == first.index
        while not second.done:
            second.step(Gaussian()(second.x, second.sigma_tensor))
        assert torch.equal(second.x, drive(sampler))


def test_bad_use_is_refused():
    """A wrong output, a step after the end, and a sampler that needs guided outputs are refused."""
    stepper = kd.Stepper(kd.get_sampler("euler"), state(), [1.0, 0.5])
    with pytest.raises(DenoiserError, match="shape"):
        stepper.step(torch.zeros(3, 3))
    stepper.step(stepper.x * 0)
    assert stepper.done
    with pytest.raises(ParameterError, match="at its end"):
        stepper.step(stepper.x)

    class Guided(type(kd.get_sampler("euler"))):
        __slots__ = ()
        needs = frozenset({"uncond"})

    with pytest.raises(CapabilityError, match="guided"):
        kd.Stepper(Guided(), state(), GRID)
