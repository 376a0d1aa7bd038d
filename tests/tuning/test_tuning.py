"""Tuning: its parts against what they should come to, and the whole against what it promises."""

from __future__ import annotations

import math
from datetime import datetime
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, ConvergenceError, ParameterError
from kdiff_core.tracing import trace
from kdiff_core.tuning import fitting, grids, solvers
from kdiff_core.tuning.fitting import Fitted, fit
from kdiff_core.tuning.grids import baselines, catalogue, cheapest_way, dynamic_grid
from kdiff_core.tuning.lessons import Lessons, Split
from kdiff_core.tuning.tuned import TunedSampler
from kdiff_core.tuning.weights import follow, free_weights, level_shares, levels_of, settled, shifted, widened

F64 = torch.float64
RANGE = {"ve": (0.03, 10.0), "flow": (0.02, 1.0)}
SAMPLERS = ("euler", "dpmpp_2m", "heun", "dpm2", "dpmpp_2s", "ipndm", "uni_pc", "deis", "rk4", "res_2s")


class Blobs:
    """Exact denoiser of four normals of different widths in three dimensions, all samples at once."""

    def __init__(self, path="ve"):
        self.path = path
        self.sample_shape = (3,)
        self.sigma_min, self.sigma_max = RANGE[path]
        random = torch.Generator().manual_seed(1)
        self.means = 1.5 * torch.randn(4, 3, generator=random, dtype=F64)
        self.variances = torch.tensor([0.05, 0.1, 0.2, 0.4], dtype=F64)

    def __call__(self, x, sigma, **cond):
        level = sigma.reshape(-1, 1)
        alpha = torch.ones_like(level) if self.path == "ve" else 1 - level
        total = alpha**2 * self.variances + level**2
        away = x[:, None] - alpha[..., None] * self.means
        logits = -away.square().sum(-1) / (2 * total) - 1.5 * total.log()
        centres = self.means + (alpha * self.variances / total)[..., None] * away
        return (logits.softmax(-1)[..., None] * centres).sum(1)


@pytest.fixture(scope="module", params=["ve", "flow"])
def lessons(request):
    return Lessons.of(Blobs(request.param), starts=(64, 32, 64), teacher_steps=50)


@pytest.fixture(scope="module")
def tuned(lessons):
    return kd.tune_weights("dpmpp_2m", lessons, 5, iterations=30, schedule="karras")


# -- the grid


@settings(max_examples=50)
@given(data=st.data(), places=st.integers(3, 7))
def test_dynamic_programming_finds_the_cheapest_way(data, places):
    """No choice of places in between costs less."""
    steps = data.draw(st.integers(1, places - 1))
    numbers = st.floats(0, 10, allow_nan=False)
    costs = [[data.draw(numbers) for _ in range(places)] for _ in range(places)]

    def total(way):
        return sum(costs[a][b] for a, b in pairwise(way))

    ways = [(0, *inner, places - 1) for inner in combinations(range(1, places - 1), steps - 1)]
    found = cheapest_way(costs, steps)
    assert tuple(found) in ways
    assert total(found) == pytest.approx(min(map(total, ways)), abs=1e-12)


def test_a_dynamic_grid_is_near_the_best_of_the_catalogue(lessons):
    """For Euler, whose steps it counts, it is better than all but the best few of the schedules."""
    error = lessons.error(kd.get_sampler("euler"), dynamic_grid(lessons, 8), "held_out")
    known = [one.error for one in catalogue("euler", lessons, 8)]
    assert sum(other < error for other in known) <= len(known) // 4


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9))
def test_levels_fall_and_stay_in_their_range(logits):
    """Whatever the parameters, the levels begin at the highest, fall, stay above the lowest and end in 0."""
    levels = [float(v) for v in levels_of(torch.tensor(logits, dtype=F64), 10.0, 0.02)]
    assert (levels[0], levels[-1], len(levels)) == (10.0, 0.0, len(logits) + 1)
    assert all(a > b for a, b in pairwise(levels))
    assert len(logits) == 1 or levels[-2] > 0.02


@given(st.lists(st.floats(0.02, 1), min_size=2, max_size=8))
def test_shares_are_those_of_the_grid(ratios):
    """The parameters that a grid gives lead back to the grid, where it is above the lowest level."""
    levels = [10.0]
    for ratio in ratios:
        levels.append(levels[-1] / math.exp(0.1 + ratio))
    low = levels[-1] * 0.5
    logits = torch.tensor(level_shares([*levels, 0.0], low), dtype=F64).log()
    assert [float(v) for v in levels_of(logits, 10.0, low)] == pytest.approx([*levels, 0.0], rel=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_gradient_of_the_levels_is_that_of_differences(sampler, lessons):
    """Through the plan and the denoiser, the loss changes with each parameter as its gradient says."""
    solver, path = kd.get_sampler(sampler), kd.VE if lessons.path == "ve" else kd.FLOW
    logits = torch.linspace(-0.5, 0.5, 4, dtype=F64).requires_grad_()

    def plan():
        return trace(solver, levels_of(logits, lessons.sigma_max, lessons.sigma_min), path)

    loss = fitting._Loss(plan, [logits], lessons)
    loss()
    gradient, step = logits.grad.clone(), 1e-6
    for i in range(4):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                logits[i] += sign * step
                ends.append(float(loss.value()))
                logits[i] -= sign * step
        assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_the_catalogue_is_sorted_and_begins_and_ends_alike(lessons):
    """Each of its grids goes from the first level to 0 in so many steps, the best first."""
    found = catalogue("dpmpp_2m", lessons, 5)
    assert len(found) > 5
    assert [one.error for one in found] == sorted(one.error for one in found)
    assert {(one.grid[0], one.grid[-1], one.grid.steps) for one in found} == {(lessons.sigma_max, 0.0, 5)}


# -- the weights


@pytest.mark.parametrize("history", [None, 1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_widened_plan_is_the_same_plan(sampler, history, lessons):
    """Written on its steps' first states and outputs, a plan comes to the same result."""
    solver = kd.get_sampler(sampler)
    grid = baselines(solver, lessons, 6, "karras")[0].grid
    plan = solver.plan(grid, lessons.path)
    wide = widened(plan, history)
    part = lessons.validation
    run = TunedSampler(settled(wide))(lessons.denoiser, part.x, grid)
    torch.testing.assert_close(run, solver(lessons.denoiser, part.x, grid), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(follow(wide, lessons.denoiser, part), run, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(data=st.data(), sampler=st.sampled_from(SAMPLERS), path=st.sampled_from(["ve", "flow"]))
def test_kept_order_conditions_hold_whatever_the_weights(data, sampler, path):
    """With `keep`, a constant denoiser is followed exactly at each level; freed, it is not."""
    low, high = RANGE[path]
    grid = kd.get_schedule("karras")(4, sigma_min=low, sigma_max=high)
    plan = kd.get_sampler(sampler).plan(grid, path)
    x, constant = torch.full((1, 3), 2.5, dtype=F64), torch.tensor([[0.3, -1.0, 0.7]], dtype=F64)

    def end(keep):
        wide = widened(plan)
        count = free_weights(wide, keep)
        deltas = data.draw(st.lists(st.floats(0.1, 1), min_size=count, max_size=count))
        sampler = TunedSampler(settled(shifted(wide, torch.tensor(deltas, dtype=F64), keep)))

        def denoiser(x, sigma):
            return constant.clone()

        denoiser.path = path
        return sampler.run(denoiser, x, grid, trajectory=True).trajectory

    for level, state in zip(grid, end(True), strict=True):
        exact = constant + (x - constant) * (level / grid[0])
        torch.testing.assert_close(state, exact, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(end(False)[-1], constant, atol=1e-2)


def test_history_bounds_what_a_state_reads(lessons):
    """With a history of 1 a multistep plan keeps its own operands; without, each state reads all outputs."""
    plan = kd.get_sampler("dpmpp_2m").plan(kd.get_schedule("karras")(6, sigma_min=0.1, sigma_max=1.0))
    assert [len(op.terms) for op in widened(plan).ops if hasattr(op, "terms")] == [2, 3, 4, 5, 6, 7]
    short = [len(op.terms) for op in widened(plan, 1).ops if hasattr(op, "terms")]
    assert short == [2, 3, 3, 3, 3, 2]


# -- the whole


def test_tuning_brings_the_held_out_error_down(tuned):
    """On starts that it has not seen the error is less than half of the untuned one."""
    errors = tuned.provenance["errors"]
    assert errors["tuned"]["held_out"] < 0.5 * errors["untuned"]["held_out"]


def test_what_is_reported_is_what_a_run_does(tuned, lessons):
    """The errors in the provenance are those of the sampler and the schedule that the file has."""
    x, target, _ = lessons.held_out
    end = tuned.sampler(lessons.denoiser, x, tuned.schedule(5))
    error = (end - target).square().mean(1).sqrt().median()
    assert float(error) == tuned.provenance["errors"]["tuned"]["held_out"]


@pytest.mark.parametrize("method", ["gradient", "dynamic"])
def test_a_grid_is_never_worse_on_validation(method, lessons):
    """The grid that is returned is at most as far off on the validation split as the untuned one."""
    for sampler in ("heun", "euler"):
        errors = kd.tune_grid(sampler, lessons, 3, method=method, iterations=5).provenance["errors"]
        assert errors["tuned"]["validation"] <= errors["untuned"]["validation"]


def test_what_overfits_is_not_kept(lessons, monkeypatch):
    """A plan that is worse on the validation split is dropped for the untuned one."""

    def spoilt(build, parameters, *args, **options):
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(torch.linspace(0, 3, parameter.numel(), dtype=F64))
            return Fitted(settled(build()), 0.0, 5, False)

    for module in (grids, solvers):
        monkeypatch.setattr(module, "fit", spoilt)
    monkeypatch.setattr(
        grids, "dynamic_grid", lambda lessons, steps: baselines(*args, steps, "exponential")[0].grid
    )
    args = kd.get_sampler("dpmpp_2m"), lessons
    found = kd.tune_grid("dpmpp_2m", lessons, 5)
    assert found.provenance["kept_untuned"] is True
    assert tuple(found.grid) == tuple(found.provenance["untuned_levels"])
    found = kd.tune_weights("dpmpp_2m", lessons, 5)
    assert found.provenance["settings"]["untuned_plan"] is True
    assert found.provenance["errors"]["tuned"] == found.provenance["errors"]["untuned"]


def test_it_stops_early_and_keeps_the_best(lessons, monkeypatch):
    """Without progress on validation it stops after its patience, and returns the plan of the best look."""
    solver, path = kd.get_sampler("euler"), kd.VE if lessons.path == "ve" else kd.FLOW
    logits = torch.zeros(4, dtype=F64, requires_grad=True)
    looks = iter([3.0, 2.0, 5.0, 4.0, 6.0])
    plans = []

    def look(build, lessons):
        with torch.no_grad():
            plans.append(settled(build()))
        return plans[-1], next(looks)

    monkeypatch.setattr(fitting, "_look", look)
    monkeypatch.setattr(fitting._Loss, "check", lambda self: None)

    def plan():
        return trace(solver, levels_of(logits, lessons.sigma_max, lessons.sigma_min), path)

    found = fit(plan, [logits], lessons, iterations=500, patience=3)
    assert (found.error, found.iterations, found.stopped_early) == (2.0, 20, True)
    assert found.plan == plans[1]


def test_one_step_leaves_nothing_to_tune(lessons):
    """A single step has neither a level nor, with the condition of order 1, a weight to change."""
    found = kd.tune_weights("dpmpp_2m", lessons, 1)
    assert found.provenance["errors"]["tuned"] == found.provenance["errors"]["untuned"]


def test_freed_weights_and_fixed_levels_are_tuned_too(lessons):
    """Each choice gives a plan that is better on validation; levels that are not tuned stay as they are."""
    found = kd.tune_weights("heun", lessons, 3, levels=False, keep=False, iterations=15, schedule="karras")
    errors = found.provenance["errors"]
    assert errors["tuned"]["validation"] < errors["untuned"]["validation"]
    assert list(found.grid) == found.provenance["untuned_levels"]


def test_the_number_of_steps_is_the_least_that_will_do(lessons):
    """It comes to the wanted error, and one step fewer, which was tried, does not."""
    found = kd.tune_steps("dpmpp_2m", lessons, 0.02, schedule="karras")
    tried = found.provenance["settings"]["tried"]
    assert found.provenance["errors"]["tuned"]["validation"] <= 0.02 < tried[str(found.grid.steps - 1)]
    assert tried[str(found.grid.steps)] == found.provenance["errors"]["tuned"]["validation"]
    with pytest.raises(ConvergenceError, match=r"comes to .* in 2 steps, .* most=2"):
        kd.tune_steps("euler", lessons, 1e-6, most=2, schedule="karras")


def test_tuned_grids_take_fewer_steps(lessons):
    """For the same error a tuned grid takes at most as many steps as an untuned one."""
    plain, tuned = (
        kd.tune_steps("euler", lessons, 0.3, method=method, schedule="karras", iterations=5)
        for method in (None, "gradient")
    )
    assert tuned.grid.steps <= plain.grid.steps


# -- lessons


def test_lessons_are_the_same_each_time_and_their_splits_different(lessons):
    """The seed decides the starts; no start is in two splits; their numbers do not matter."""
    again = Lessons.of(Blobs(lessons.path), starts=(64, 3, 3), teacher_steps=50)
    assert torch.equal(again.train.x, lessons.train.x)
    torch.testing.assert_close(again.train.target, lessons.train.target, rtol=1e-12, atol=1e-12)
    rows = torch.cat([lessons.train.x, lessons.validation.x, lessons.held_out.x])
    assert len(torch.unique(rows, dim=0)) == 160


def test_conditions_go_with_their_starts():
    """A condition with one entry for each start reaches the starts that it belongs to; others reach all."""

    class Conditioned(Blobs):
        def __call__(self, x, sigma, shift, scale, **cond):
            assert len(shift) == len(x)
            return super().__call__(x - shift, sigma) * scale + shift

    shift = torch.arange(12, dtype=F64)[:, None]
    cond = {"shift": shift, "scale": torch.tensor([1.0])}
    made = Lessons.of(Conditioned(), starts=(6, 3, 3), teacher_steps=5, cond=cond, batch=2)
    assert torch.equal(made.validation.cond["shift"], shift[6:9])
    assert torch.equal(made.held_out.cond["scale"], torch.tensor([1.0]))
    assert 0 < made.error(kd.get_sampler("euler"), [10.0, 1.0, 0.0], "held_out") < 5


def test_chunks_have_all_samples_once():
    """In chunks of any size each sample comes once, in order."""
    part = Split(torch.arange(7), torch.arange(7), {"label": torch.arange(7)})
    for size in (1, 3, 7, 10):
        chunks = list(part.chunks(size))
        assert torch.cat([c.x for c in chunks]).tolist() == list(range(7))
        assert all(torch.equal(c.x, c.cond["label"]) and len(c.x) <= size for c in chunks)


# -- provenance and refusals


def test_the_provenance_is_complete(tuned, lessons):
    """Sampler, denoiser, teacher, seed, numbers of starts, errors, versions and date are there."""
    facts = tuned.provenance
    assert facts["sampler"] == repr(kd.get_sampler("dpmpp_2m"))
    assert facts["denoiser"]["name"] == "Blobs"
    assert (facts["path"], facts["seed"], facts["steps"], facts["evaluations"]) == (lessons.path, 0, 5, 5)
    assert facts["range"] == list(RANGE[lessons.path])
    assert facts["starts"] == {"train": 64, "validation": 32, "held_out": 64}
    assert facts["teacher"]["steps"] == 50
    assert facts["untuned_schedule"] == "karras"
    assert [list(errors) for errors in facts["errors"].values()] == [list(facts["starts"])] * 2
    assert (facts["kdiff"], facts["torch"]) == (kd.__version__, torch.__version__)
    assert datetime.fromisoformat(facts["date"]).tzinfo is not None


def test_the_denoisers_data_are_named_by_their_hash():
    """A denoiser that knows a hash of its data leaves it in the provenance."""
    made = Lessons.of("digits", starts=(1, 1, 1), teacher_steps=1)
    assert made.facts["denoiser"]["name"] == "digits"
    assert made.facts["denoiser"]["data_sha256"] == kd.get_denoiser("digits").data_sha256


@pytest.mark.parametrize("cut", ["sigma", "all"])
def test_a_denoiser_that_cuts_the_gradient_is_refused(cut, lessons):
    """Through a float of sigma, or without any gradient, nothing is tuned by gradient, but by calls alone."""

    class Cut(Blobs):
        def __call__(self, x, sigma, **cond):
            out = super().__call__(x, torch.full_like(sigma, float(sigma[0].detach())))
            return out.detach() if cut == "all" else out

    made = Lessons.of(Cut(), starts=(8, 8, 8), teacher_steps=20)
    with pytest.raises(CapabilityError, match="method='dynamic'"):
        kd.tune_grid("dpmpp_2m", made, 4, schedule="karras")
    found = kd.tune_grid("dpmpp_2m", made, 4, schedule="karras", method="dynamic")
    assert found.grid.steps == 4


def test_the_models_own_gradients_are_left_alone():
    """A model whose parameters record gradients has none of them after a tuning."""

    class Network(Blobs):
        factor = torch.ones((), dtype=F64, requires_grad=True)

        def __call__(self, x, sigma, **cond):
            return super().__call__(x, sigma) * self.factor

    made = [Lessons.of(kind(), starts=(8, 8, 8), teacher_steps=20) for kind in (Network, Blobs)]
    found = [kd.tune_grid("dpmpp_2m", each, 4, schedule="karras", iterations=5) for each in made]
    assert Network.factor.grad is None
    assert found[0].grid == found[1].grid


def test_what_cannot_be_tuned_is_refused_before_any_work(lessons):
    """Noise, own levels, wrong numbers and unknown methods are refused with what would be right."""
    with pytest.raises(CapabilityError, match=r"draws noise.*'dpmpp_2m'"):
        kd.tune_grid("euler_ancestral", lessons)
    with pytest.raises(CapabilityError, match="levels of its own"):
        kd.tune_weights("dpm_fast", lessons, 6, schedule="karras")
    with pytest.raises(ParameterError, match="method='magic'"):
        kd.tune_grid("euler", lessons, method="magic")
    with pytest.raises(ParameterError, match="steps=0"):
        kd.tune_weights("euler", lessons, 0)
    with pytest.raises(ParameterError, match="patience"):
        kd.tune_grid("euler", lessons, patience=0)
    with pytest.raises(ParameterError, match="history"):
        kd.tune_weights("euler", lessons, history=0)
    with pytest.raises(ParameterError, match="error=nan"):
        kd.tune_steps("euler", lessons, math.nan)
    with pytest.raises(ParameterError, match="needed are 6 steps"):
        kd.tune_grid(
            "euler", lessons, 6, schedule=kd.get_schedule("custom", function=lambda n: range(n, -1, -1))
        )


def test_lessons_say_what_is_missing():
    """A range, a shape or numbers of starts that are not there are asked for by name."""

    def bare(x, sigma):
        return x

    with pytest.raises(ParameterError, match="sigma_min and sigma_max"):
        Lessons.of(bare, shape=(2,))
    with pytest.raises(ParameterError, match="sample_shape"):
        Lessons.of(bare, sigma_min=0.1, sigma_max=1.0)
    with pytest.raises(ParameterError, match="three whole numbers"):
        Lessons.of(Blobs(), starts=(8, 0, 8))
    with pytest.raises(CapabilityError, match="draws noise"):
        Lessons.of(Blobs(), teacher="euler_ancestral")
