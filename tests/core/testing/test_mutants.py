"""Planted bugs in samplers: the kit finds each of them, by the check that is about it."""

from __future__ import annotations

import pytest
from sampler_mutants import MUTANTS, Clamps, NormOfTheSample, ReadsTheOlder, SmoothOnly

from kdiff_core.testing import LawBroken, check_sampler, running


@pytest.fixture(name="no_shrinking")
def fixture_no_shrinking(monkeypatch):
    """Stop at the first example that fails: the examples are those of any run, and nothing is simplified."""
    monkeypatch.setattr(running._Search, "simplifies", False)


def case(name):
    mutant = MUTANTS[name]
    marks = [pytest.mark.kdiff_slow] if mutant.slow else []
    return pytest.param(mutant, id=f"{name}-{mutant.check}", marks=marks)


every = pytest.mark.parametrize("mutant", [case(name) for name in MUTANTS])
quiet = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


@every
@pytest.mark.parametrize("seed", [0, 5])
@quiet
@pytest.mark.usefixtures("no_shrinking")
def test_planted_bugs_are_found(mutant, seed):
    """Each bug is rejected by the check that is about it, with a message that says what is wrong."""
    report = check_sampler(mutant.sampler, only=mutant.check, examples=20, seed=seed, slow=mutant.slow)
    found = report[mutant.check]
    assert found.status == "failed", mutant.wrong
    assert mutant.word in found.message
    with pytest.raises(LawBroken, match=mutant.check):
        report.raise_if_broken()


@pytest.mark.kdiff_slow
@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.also])
@quiet
@pytest.mark.usefixtures("no_shrinking")
def test_other_checks_that_find_them(name):
    """The list of what else a bug breaks is right."""
    mutant = MUTANTS[name]
    report = check_sampler(mutant.sampler, only=mutant.also, examples=20, seed=0)
    assert {result.check for result in report.failures} == set(mutant.also)


def test_a_simple_example_is_found():
    """A failure is shown on few steps, the first seed and the grid's usual ends."""
    sampler, name = MUTANTS["AbsoluteThreshold"].sampler, "scale_equivariance"
    example = check_sampler(sampler, only=name, examples=20, seed=0)[name].example
    assert example["seed"] == 0
    assert example["grid"][0] == 10.0
    assert len(example["grid"]) <= 4


@pytest.mark.parametrize("sampler", [Clamps(), NormOfTheSample()], ids=repr)
def test_a_nonlinear_sampler_is_independent_of_the_batch(sampler):
    """What looks at each sample by itself is not taken for what looks at the batch."""
    only = ("independent_of_the_batch", "pure", "noise_if_and_only_if_declared", "finite_on_extreme_grids")
    report = check_sampler(sampler, only=only, examples=20, seed=0)
    assert report.ok, str(report)


@pytest.mark.parametrize("sampler", [ReadsTheOlder(), SmoothOnly()], ids=repr)
def test_an_unusual_sampler_is_no_bug(sampler):
    """A method that no paper has, of the order that it declares, keeps every law."""
    report = check_sampler(sampler, examples=6, seed=0)
    assert report.ok, str(report)
