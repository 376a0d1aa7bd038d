"""Budgets: the number of steps, or the sampler and steps, that spend a number of model calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NAMES, SAMPLERS, few

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.budget import _Budget

PLANNED = [name for name in NAMES if SAMPLERS[name].linear and not name.startswith("diffusers:ScoreSde")]


def calls(sampler, steps, path="ve", zero=True):
    """Model calls of a sampler in a number of steps, from its plan."""
    return _Budget(sampler, 1, path, None, None, zero).calls(kd.get_sampler(sampler), steps)


@pytest.mark.parametrize("name", PLANNED)
def test_the_steps_are_the_most_that_the_budget_pays_for(name):
    """Of every sampler with a plan the steps spend at most the budget, and one more spends more."""
    for evaluations, path, zero in ((30, "ve", True), (34, "flow", False)):
        steps = kd.steps_for(name, evaluations, path=path, zero=zero)
        assert calls(name, steps, path, zero) <= evaluations < calls(name, steps + 1, path, zero)


@few
@given(st.sampled_from(["heun", "dpmpp_3s", "rk4", "plms", "restart", "seeds_3"]), st.integers(8, 40))
def test_no_larger_number_fits(name, evaluations):
    """Among all numbers of steps up to the budget none larger fits, though calls need not grow evenly."""
    steps = kd.steps_for(name, evaluations)
    fitting = [n for n in range(1, evaluations + 1) if calls(name, n) <= evaluations]
    assert steps == fitting[-1]


@pytest.mark.parametrize("evaluations", [1, 2, 7, 20, 21])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2s", "dpmpp_3s", "rk4", "dpmpp_sde", "dpmpp_2m"])
def test_a_budget_can_be_spent_exactly(name, evaluations):
    """The sampler and steps that are returned make exactly as many calls; only the end is changed."""
    sampler, steps = kd.spend(name, evaluations)
    assert calls(sampler, steps) == evaluations
    if sampler != kd.get_sampler(name):
        assert sampler.solver == kd.get_sampler(name)
        fewer = [kd.get_modifier("euler_at_end", name, euler_at_end=k) for k in range(sampler.euler_at_end)]
        assert all(calls(s, n) != evaluations for s in fewer for n in range(1, steps + 3))


def test_known_budgets():
    """Heun makes 19 calls in 10 steps to 0 and 20 above it; exactly 20 take two Euler steps."""
    assert kd.steps_for("heun") == 10
    assert kd.steps_for("heun", 20, zero=False) == 10
    assert kd.steps_for("heun", 19, zero=False) == 9
    assert kd.steps_for("DPM++ 2M", 20) == 20
    assert kd.spend("heun", 20) == (kd.get_modifier("euler_at_end", "heun", euler_at_end=2), 11)
    one = kd.get_modifier("euler_at_end", "heun", euler_at_end=1)
    assert kd.spend("heun", 21, zero=False) == (one, 11)
    assert kd.spend("heun", 19) == (kd.get_sampler("heun"), 10)


def test_the_callers_schedule_counts():
    """Restart's calls depend on where the levels lie, so that a schedule of one's own changes the steps."""

    def low(steps):
        return kd.get_schedule("karras")(steps, sigma_min=0.03, sigma_max=0.09)

    assert kd.steps_for("restart", 30, schedule=low) == 15
    assert kd.steps_for("restart", 30) < 15


@pytest.mark.parametrize(
    ("sampler", "options", "kind", "message"),
    [
        ("dpm_adaptive", {}, errors.CapabilityError, "no plan"),
        (kd.get_sampler("dpm_fast", evaluations=6), {}, errors.CapabilityError, "do not grow"),
        ("rk4", {"evaluations": 3, "zero": False}, errors.ParameterError, "one step of .* makes 4"),
        ("euler", {"evaluations": 0}, errors.ParameterError, "at least 1"),
        ("euler", {"evaluations": 2.5}, errors.ParameterError, "at least 1"),
        ("euler", {"schedule": tuple, "zero": False}, errors.ParameterError, "schedule"),
        ("no such", {}, errors.UnknownNameError, "no such"),
    ],
)
def test_budgets_without_an_answer_are_refused(sampler, options, kind, message):
    """A sampler without a plan, one whose calls stay the same, and budgets out of range are refused."""
    for function in (kd.steps_for, kd.spend):
        with pytest.raises(kind, match=message):
            function(sampler, **options)


def test_what_cannot_be_spent_says_what_can():
    """A sampler whose end cannot be Euler's is refused with the numbers of calls that it can make."""
    with pytest.raises(errors.ParameterError, match="19 calls in 10 steps and 21 in 11"):
        kd.spend("dpmpp_2s_ancestral_cfg_pp", 20)


def test_a_sample_can_be_asked_for_by_its_evaluations():
    """`kd.sample` takes the steps that the budget pays for; steps or levels beside it are refused."""
    by_calls = kd.sample(n=1, sampler="heun", evaluations=9)
    assert kd.SampleJob(n=1, sampler="heun", evaluations=9).setup().grid.steps == 5
    assert bool((by_calls == kd.sample(n=1, sampler="heun", steps=5)).all())
    for options in ({"steps": 5}, {"schedule": [1.0, 0.0]}):
        with pytest.raises(errors.ParameterError, match="evaluations=9 decides"):
            kd.sample(n=1, evaluations=9, **options)
    with pytest.raises(errors.ParameterError, match="evaluations"):
        kd.SampleJob(evaluations=0)
