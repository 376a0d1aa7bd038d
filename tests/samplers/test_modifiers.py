"""Modifiers: what each changes, what it leaves, what it refuses, and how they go together."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import few, interval_noise, levels, state

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_core.path import as_path
from kdiff_core.testing import Gaussian, parametrize_with_checks
from kdiff_core.testing.laws.order import run_errors
from kdiff_core.testing.measure import slope, smooth_grid
from kdiff_core.testing.strategies import grids
from kdiff_core.testing.variants import Function, model_for

paths = pytest.mark.parametrize("path", ["ve", "flow"])


def run(sampler, path, grid, problem=None, x=None):
    """The result on a problem, the noise given by its interval."""
    x = state() if x is None else x
    problem = problem or Gaussian(path)
    return sampler(model_for(sampler, problem), x, grid, noise=interval_noise(x))


def same(one, other, tolerance=1e-11):
    """Whether two states agree to rounding."""
    return float((one - other).abs().max()) <= tolerance * (1.0 + float(one.abs().max()))


# -- switched off, and counted

OFF = {
    "churn": ("heun", {"s_churn": 0.0}),
    "ancestral": ("heun", {"eta": 0.0}),
    "restart": ("heun", {"restart_times": 0}),
    "per_step, the whole run": ("ddpm", {"noise_low": 0.0}),
    "lower_order_final": ("lms", {"lower_order_final": "never"}),
    "lower_order_final, few": ("lms", {"lower_order_final": "few"}),
    "euler_at_end": ("heun", {"euler_at_end": 0}),
    "extrapolated_end": ("lms", {"extrapolated_end": 1}),
    "extrapolated_end, noise in each step": ("ddpm", {"extrapolated_end": 2}),
    "cfg_pp": ("dpmpp_2m", {"cfg_pp": False}),
    "analytic_start": ("heun", {"analytic_start": False}),
    "detail": ("heun", {"detail": 0.0}),
    "discard_penultimate": ("heun", {"discard_penultimate": False}),
}


@pytest.mark.parametrize("name", OFF)
@paths
def test_switched_off_is_the_sampler_itself(name, path):
    """A modifier that is switched off, or finds nothing to do, leaves the sampler's plan as it is."""
    sampler, options = OFF[name]
    modified = kd.get_sampler(sampler, **options)
    assert modified != kd.get_sampler(sampler)
    for grid in (levels(path, 20), levels(path, 20)[:-1]):
        assert modified.plan(grid, path).ops == kd.get_sampler(sampler).plan(grid, path).ops


# What each costs, of a run of 10 steps into 0: evaluations more than the sampler alone.
COSTS = {
    "start_solver": ("lms", {"start_solver": "res_3s"}, 3 * 2),
    "start_solver of two stages": ("dpmpp_2m", {"start_solver": "heun"}, 1),
    "lower_order_final": ("lms", {"lower_order_final": "always"}, 0),
    "euler_at_end": ("heun", {"euler_at_end": 3}, -2),
    "extrapolated_end": ("heun", {"extrapolated_end": 3}, 0),
    "cfg_pp": ("heun", {"cfg_pp": True}, 0),
    "analytic_start": ("heun", {"analytic_start": True}, -1),
    "detail": ("heun", {"detail": 0.1}, 0),
    "discard_penultimate": ("heun", {"discard_penultimate": True}, -2),
    "per_step": ("heun", {"eta": 1.0, "etas": [0.5] * 10}, 0),
}


@pytest.mark.parametrize("name", COSTS)
@paths
def test_evaluations(name, path):
    """A modifier costs or saves the model calls that it says, in the plan and in a run."""
    sampler, options, more = COSTS[name]
    modified, grid = kd.get_sampler(sampler, **options), levels(path, 10)
    planned = modified.plan(grid, path).evaluations
    assert planned - kd.get_sampler(sampler).plan(grid, path).evaluations == more
    assert modified.run(model_for(modified, Gaussian(path)), state(), grid, seed=0).evaluations == planned


# -- eta and s_noise over the run


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "sa_solver_pece"])
@paths
def test_a_list_of_one_value_is_that_value(sampler, path):
    """Lists that repeat a value do what the parameter does."""
    grid = levels(path, 6)
    listed = kd.get_sampler(sampler, etas=[0.4] * 6, s_noises=[1.1] * 6)
    assert listed.plan(grid, path).ops == kd.get_sampler(sampler, eta=0.4, s_noise=1.1).plan(grid, path).ops


@paths
@given(data=st.data())
@few
def test_each_step_has_its_own_noise(path, data):
    """A run with lists is the runs of its steps, each with its values, one after the other."""
    grid = data.draw(grids(path))
    steps = len(grid) - 1
    etas, s_noises = (data.draw(st.lists(st.floats(0, 1), min_size=steps, max_size=steps)) for _ in range(2))
    x = state()
    for i in range(steps):
        x = run(kd.get_sampler("heun", eta=etas[i], s_noise=s_noises[i]), path, grid[i : i + 2], x=x)
    # The share of the inner sampler is overruled.
    sampler = kd.get_sampler("heun", eta=0.123, etas=etas, s_noises=s_noises)
    assert same(run(sampler, path, grid), x)


@paths
def test_noise_in_an_interval(path):
    """Outside of the interval a step is taken with eta = 0; its ends belong to it."""
    grid = levels(path, 8)
    inside = [2 <= i <= 4 for i in range(8)]
    limited = kd.get_sampler("dpmpp_2m_sde", eta=0.7, noise_low=grid[4], noise_high=grid[2])
    listed = kd.get_sampler("dpmpp_2m_sde", etas=[0.7 * part for part in inside])
    assert limited.plan(grid, path).ops == listed.plan(grid, path).ops
    assert {noise.sigma_from for noise in limited.plan(grid, path).noises} == set(grid[2:5])


def test_what_lists_make_of_a_sampler():
    """Order, noise and path are declared for the largest share that the lists have."""
    still = kd.get_sampler("dpmpp_3m_sde", corrected=True, etas=[0.0, 0.0])
    assert (still.order, still.stochastic) == (3, False)
    noisy = kd.get_sampler("dpmpp_3m_sde", corrected=True, eta=0.0, etas=[0.0, 0.5])
    assert (noisy.order, noisy.stochastic) == (2, True)
    assert hash(noisy) == hash(kd.get_sampler("dpmpp_3m_sde", corrected=True, eta=0.0, etas=(0.0, 0.5)))


@pytest.mark.parametrize("numbers", [[1.0] * 5, [1.0] * 7])
def test_a_list_of_another_length_is_refused_before_any_call(numbers):
    """A list has one number for each step that is taken, which a level left out changes."""
    calls = []
    model = Function("ve", lambda x, sigma: calls.append(sigma))
    with pytest.raises(ParameterError, match=f"etas has {len(numbers)} numbers for a run of 6 steps"):
        kd.get_sampler("ddpm", etas=numbers)(model, state(), levels("ve", 6))
    assert not calls
    shorter = kd.get_sampler("ddpm", etas=[1.0] * 5, discard_penultimate=True)
    assert len(shorter.plan(levels("ve", 6)).steps) == 5


# -- the end


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "lms", "dpmpp_2m_sde"])
@pytest.mark.parametrize("last", [1, 3])
@paths
def test_euler_at_the_end_is_composed(sampler, last, path):
    """The run is the solver's without its last steps, then Euler's."""
    for grid in (levels(path, 8), levels(path, 9)[:-1]):
        first = run(kd.get_sampler(sampler), path, grid[:-last])
        whole = run(kd.get_sampler("euler"), path, grid[-last - 1 :], x=first)
        assert same(run(kd.get_sampler(sampler, euler_at_end=last), path, grid), whole)


@pytest.mark.parametrize("order", [2, 3, 4])
@paths
@given(data=st.data())
@few
def test_a_lower_order_at_the_end_is_that_of_unipc(order, path, data):
    """Exponential Adams-Bashforth with its history cut is UniP, which lowers its order itself."""
    grid = data.draw(grids(path))
    cut = kd.get_sampler("xeab", max_order=order, lower_order_final="always")
    own = kd.get_sampler(
        "uni_pc", solver_order=order, corrector=False, variant="exact", lower_order_final="always"
    )
    assert same(run(cut, path, grid), run(own, path, grid), 1e-9)


@paths
def test_when_the_order_is_lowered(path):
    """In runs of fewer than 15 steps, on grids that end in 0, or always; then the last step is Euler's."""
    for steps in (14, 15):
        for grid in (levels(path, steps), levels(path, steps + 1)[:-1]):
            before = kd.get_sampler("lms", lower_order_final="always")
            euler = run(before, path, grid, x=None)
            for mode, lowered in (("few", steps < 15), ("zero", grid[-1] == 0), ("never", False)):
                result = run(kd.get_sampler("lms", lower_order_final=mode), path, grid)
                alone = run(kd.get_sampler("lms"), path, grid)
                assert torch.equal(result, euler if lowered else alone)
                assert not same(euler, alone)


@given(data=st.data(), used=st.integers(2, 4), path=st.sampled_from(["ve", "flow"]))
@few
def test_the_extrapolated_end_is_a_polynomial_in_the_squared_ratio(data, used, path):
    """Outputs that are a polynomial in the squared ratio end at its value at 0, and of no higher degree."""
    grid = [*smooth_grid(path, data.draw(st.integers(used, 8)), data.draw(st.floats(-0.4, 0.4))), 0.0]
    sampler = kd.get_sampler("euler", extrapolated_end=used)
    for degree in range(used + 1):

        def output(x, sigma, degree=degree):
            ratio = float(sigma[0]) / as_path(path).alpha(float(sigma[0]))
            return torch.full_like(x, 0.3 + (ratio * ratio) ** degree * (degree > 0))

        result = sampler(Function(path, output), state(), grid)
        assert (float((result - 0.3).abs().max()) < 1e-10) == (degree < used)


@paths
def test_order_of_the_end(path):
    """The end misses by the square of the last level; with n outputs by its power 2 n."""
    lasts, problem, found = (0.2, 0.1, 0.05), Gaussian(path, 0.3, (0.25, 1.0, 2.0)), {}
    for used in (1, 2, 3):
        sampler, errors = kd.get_sampler("krogstad4", extrapolated_end=used), []
        for last in lasts:
            grid = [*smooth_grid(path, round(40 * log(5.0 / last)), 0.0, 5.0, last), 0.0]  # steps of one size
            x = state(dims=3)
            errors.append(float((sampler(problem, x, grid) - problem.exact(x, grid[0], 0.0)).norm()))
        found[used] = slope(lasts, errors)
    assert found == {used: pytest.approx(2 * used, abs=0.3) for used in found}


@pytest.mark.parametrize(("sampler", "options"), [("heun", {}), ("lms", {"max_order": 2}), ("uni_pc", {})])
@paths
def test_above_0_the_extrapolated_end_changes_nothing(sampler, options, path):
    """All states but the last are the solver's, however many outputs are kept for it."""
    solver, grid = kd.get_sampler(sampler, **options), levels(path, 7)
    ended = kd.get_modifier("extrapolated_end", solver, extrapolated_end=4)
    walks = [one.run(Gaussian(path), state(), grid, trajectory=True).trajectory for one in (ended, solver)]
    assert [same(a, b) for a, b in zip(*walks, strict=True)] == [*[True] * 7, False]


def test_the_end_does_not_reach_over_noise():
    """Outputs from before a step with noise are left out, those behind it are used."""
    grid = levels("ve", 8)
    quiet = kd.get_sampler("heun", s_churn=20.0, s_tmin=grid[5] * 0.99)
    ended = [kd.get_modifier("extrapolated_end", quiet, extrapolated_end=n) for n in (2, 3, 4)]
    read = [len(sampler.plan(grid).steps[-1].ops[-1].terms) for sampler in ended]
    assert read == [2, 2, 2]  # the steps from levels 6 and 7 draw none
    everywhere = kd.get_sampler("heun", s_churn=20.0, extrapolated_end=2)
    assert (
        everywhere.plan(grid).steps[-1].ops == kd.get_sampler("heun", s_churn=20.0).plan(grid).steps[-1].ops
    )


@paths
def test_the_last_level_but_one_is_left_out(path):
    """The grid lacks the level before its last, whatever other levels a sampler adds."""
    grid = levels(path, 6)
    assert list(kd.get_sampler("dpm2", discard_penultimate=True).levels(grid, path)) == [*grid[:-2], grid[-1]]
    shorter = kd.Grid.of([*grid[:-2], grid[-1]])
    restarts = kd.get_sampler("restart", discard_penultimate=True)
    assert restarts.levels(grid, path) == kd.get_sampler("restart").levels(shorter, path)
    assert list(kd.get_sampler("dpm2", discard_penultimate=True).levels(grid[:2], path)) == grid[:2]


# -- the start


@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [
        ("dpmpp_3m", {"corrected": True}, 3),
        ("xeab", {"max_order": 4}, 4),
        ("vab", {"max_order": 3}, 3),
        ("lms", {}, 4),
        ("uni_pc", {}, 3),
    ],
)
def test_order_of_a_run_behind_a_high_order_start(sampler, options, order):
    """Behind steps of order 3 a solver of order 3 or 4 has its order over the whole run, not 2."""
    steps = (40, 80, 160)
    sizes, started = [1 / n for n in steps], kd.get_sampler(sampler, start_solver="res_3s", **options)
    assert started.order == order
    errors = run_errors(started, "flow", steps, 0.2)
    assert slope(sizes, errors) > order - 0.3
    assert errors[-1] < 0.2 * run_errors(kd.get_sampler(sampler, **options), "flow", steps[-1:], 0.2)[0]


@pytest.mark.parametrize("sampler", ["lms", "dpmpp_2m", "uni_pc", "deis", "ipndm"])
@pytest.mark.parametrize("path", ["ve", "flow", "flow from 1"])
def test_the_first_steps_are_the_start_solvers(sampler, path):
    """While the history is incomplete, pure noise not counting, the states are the one-step solver's."""
    pure, path = "from 1" in path, path[:4]
    grid = [1.0 if pure else levels(path, 8)[0], *levels(path, 8)[1:]]
    started, alone = kd.get_sampler(sampler, start_solver="dpmpp_3s"), kd.get_sampler("dpmpp_3s")
    walks = [one.run(Gaussian(path), state(), grid, trajectory=True).trajectory for one in (started, alone)]
    alike = [same(a, b) for a, b in zip(*walks, strict=True)]
    assert alike == [i <= started.memory + pure for i in range(9)]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "lms", "dpmpp_2m_sde"])
@pytest.mark.parametrize("path", ["ve", "flow", "flow from 1"])
@given(spread=st.floats(0.2, 4.0))
@few
def test_the_analytic_start_is_exact_for_normal_data(sampler, path, spread):
    """On normal data of mean 0 and of `sigma_data` the run is the solver's, with one evaluation less."""
    grid = [1.0 if "1" in path else levels(path[:4], 6)[0], *levels(path[:4], 6)[1:]]
    path, problem = path[:4], Gaussian(path[:4], 0.0, spread * spread)
    started = kd.get_sampler(sampler, analytic_start=True, sigma_data=spread)
    assert same(run(started, path, grid, problem), run(kd.get_sampler(sampler), path, grid, problem))


@paths
def test_the_papers_first_step(path):
    """In the papers' form the noise of the first state is the state, scaled to variance 1."""
    (sigma, after), x = levels(path, 5)[:2], state()
    way = as_path(path)
    started = kd.get_sampler("euler", analytic_start=True, sigma_data=0.5, analytic_form="noise")
    eps = x / (way.alpha(sigma) ** 2 * 0.25 + sigma**2) ** 0.5
    denoised = (x - sigma * eps) / way.alpha(sigma)
    assert same(run(started, path, [sigma, after], x=x), way.alpha(after) * denoised + after * eps)


# -- detail


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_sde"])
@paths
def test_detail_is_a_model_that_is_told_of_less_noise(sampler, path):
    """Over the whole run it is the sampler on a model that takes a state for one of a lower level."""
    way, problem = as_path(path), Gaussian(path)

    def understating(x, sigma):
        level = float(sigma[0])
        told = way.from_ratio(way.ratio(level) * 0.8)
        return problem(x * (way.alpha(told) / way.alpha(level)), torch.full_like(sigma, told))

    grid = levels(path, 6)
    whole = kd.get_sampler(sampler, detail=0.2, detail_start=0.0, detail_end=1.0)
    alone = kd.get_sampler(sampler)
    assert same(run(whole, path, grid, problem), run(alone, path, grid, Function(path, understating)))


def test_detail_in_a_part_of_the_run():
    """The model hears of lower levels from a part of the steps on and up to another, no longer."""
    grid = levels("ve", 10)
    told = kd.get_sampler("euler", detail=0.25, detail_start=0.2, detail_end=0.5).plan(grid).evaluation_sigmas
    factors = [0.75 if 2 <= i < 5 else 1.0 for i in range(10)]
    assert told == pytest.approx([factor * level for factor, level in zip(factors, grid, strict=False)])


# -- together

NESTS = {
    "Euler at the end, CFG++": (
        ("dpmpp_2m", {"cfg_pp": True, "euler_at_end": 1}),
        ["CFGpp", "EulerAtEnd", "DPMpp2M"],
    ),
    "churn, both ends": (
        ("heun", {"extrapolated_end": 2, "analytic_start": True, "s_churn": 40}),
        ["AnalyticStart", "ExtrapolatedEnd", "Churn", "Heun"],
    ),
    "lms from start to end": (
        ("lms", {"lower_order_final": "always", "start_solver": "res_3s"}),
        ["LowerOrderFinal", "StartSolver", "LMS"],
    ),
    "ancestral, restricted": (
        ("dpm2", {"discard_penultimate": True, "noise_low": 0.2, "eta": 0.8, "detail": 0.1}),
        ["DiscardPenultimate", "Detail", "PerStep", "Ancestral", "DPM2"],
    ),
    "restart, ends": (
        ("euler", {"extrapolated_end": 3, "restart_times": 2, "restart_high": 1.0, "euler_at_end": 2}),
        ["ExtrapolatedEnd", "EulerAtEnd", "Restart", "Euler"],
    ),
    "much of it, CFG++": (
        (
            "dpmpp_3m",
            {"cfg_pp": True, "start_solver": "heun", "detail": 0.05, "extrapolated_end": 2}
            | {"analytic_start": True, "lower_order_final": "few", "discard_penultimate": True},
        ),
        ["DiscardPenultimate", "Detail", "AnalyticStart", "CFGpp", "ExtrapolatedEnd", "LowerOrderFinal"],
    ),
}
BUILT = {name: kd.get_sampler(sampler, **options) for name, ((sampler, options), _) in NESTS.items()}


@pytest.mark.parametrize("name", NESTS)
def test_the_order_of_nesting(name):
    """Options in any order nest the modifiers as the table has them."""
    (sampler, options), expected = NESTS[name]
    for given_options in (options, dict(reversed(options.items()))):
        found, one = [], kd.get_sampler(sampler, **given_options)
        while one is not None:
            found.append(type(one).__name__)
            one = getattr(one, "solver", None)
        assert found[: len(expected)] == expected


RUNS = ("eager_equals_plan", "stepper_equals_engine", "evaluations_as_planned", "resume_equals_run")


@parametrize_with_checks(
    BUILT.values(),
    only=(*RUNS, "nested_states", "finite_on_extreme_grids", "plan_does_not_grow", "any_kind_of_number"),
)
def test_nests_keep_the_laws_of_a_run(check):
    """Samplers in several modifiers run as planned, however they are driven."""
    check()


@parametrize_with_checks(
    [
        kd.get_sampler("heun", analytic_start=True),
        kd.get_sampler("lms", max_order=2, analytic_start=True, analytic_form="noise"),
        kd.get_sampler("dpmpp_2m", detail=0.1),
        kd.get_sampler("euler_ancestral", detail=0.1, detail_start=0.0),
    ]
)
def test_laws_of_what_answers_for_the_model(check):
    """Where the first evaluation is not the model's, or at another level, the kit's laws hold as declared."""
    check()


@paths
def test_cfg_pp_takes_the_other_modifiers_in(path):
    """Where the outputs of guidance are equal, CFG++ around other modifiers changes nothing."""
    grid = levels(path, 7)
    for sampler, options in (
        ("dpmpp_2m", {"euler_at_end": 2}),
        ("lms", {"start_solver": "res_2s", "max_order": 3}),
        ("lms", {"lower_order_final": "always"}),
        ("heun", {"extrapolated_end": 3}),
        ("heun", {"analytic_start": True, "detail": 0.1}),
    ):
        guided, alone = (kd.get_sampler(sampler, cfg_pp=on, **options) for on in (True, False))
        assert same(run(guided, path, grid), run(alone, path, grid))


# -- refusals

REFUSED = {
    "start of a one-step solver": (("heun", {"start_solver": "res_3s"}), "reads no earlier point"),
    "start of a noisy one": (("dpmpp_2m_sde", {"start_solver": "res_3s"}), "draws noise itself"),
    "a start with memory": (("lms", {"start_solver": "dpmpp_2m"}), "reads 1 earlier points"),
    "a noisy start": (("lms", {"start_solver": "ddpm"}), "draws noise itself"),
    "a start of too low an order": (("lms", {"start_solver": "heun"}), "take one of at least 3"),
    "no history to cut": (("heun", {"lower_order_final": "always"}), "no history to cut"),
    "a mode that there is not": (("lms", {"lower_order_final": "often"}), "must be one of"),
    "an end of guidance": (("euler_cfg_pp", {"euler_at_end": 1}), "wrap it the other way round"),
    "an extrapolation of guidance": (
        ("euler_cfg_pp", {"extrapolated_end": 2}),
        "wrap it the other way round",
    ),
    "too many outputs": (("heun", {"extrapolated_end": 5}), "must be one of 1, 2, 3, 4"),
    "steps that are not whole": (("heun", {"euler_at_end": 1.5}), "must be a whole number"),
    "no eta": (("euler", {"etas": [1.0]}), "has neither eta nor s_noise"),
    "churn has no eta": (("heun", {"s_churn": 9.0, "noise_high": 1.0}), "has no parameter 'eta'"),
    "an eta below 0": (("ddim", {"etas": [0.5, -0.5]}), "eta=-0.5 must be"),
    "one number": (("ddpm", {"etas": 0.5}), "is not a list"),
    "lists of two lengths": (("ddpm", {"etas": [1.0], "s_noises": [1.0, 1.0]}), "etas has 1 numbers and"),
    "an empty interval": (("ddpm", {"noise_low": 2.0, "noise_high": 1.0}), "is not above noise_low"),
    "a step taken twice": (("sa_solver", {"noise_low": 1.0}), "takes each step twice"),
    "data without spread": (("heun", {"sigma_data": 0.0}), "must be a finite number above 0"),
    "no noise left": (("heun", {"detail": 1.0}), "at least 0 and below 1"),
    "a part that is none": (("heun", {"detail_start": 0.5, "detail_end": 0.5}), "is not above detail_start"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    """What makes no sense is refused when it is made, with the reason."""
    (sampler, options), message = REFUSED[name]
    with pytest.raises(ParameterError, match=message):
        kd.get_sampler(sampler, **options)


def test_a_parameter_of_its_own_comes_before_the_modifiers():
    """UniPC lowers its order itself: the option is its own, and the modifier refuses it."""
    assert kd.get_sampler("uni_pc", lower_order_final="always").lower_order_final == "always"
    with pytest.raises(ParameterError, match="has the parameter lower_order_final itself"):
        kd.get_modifier("lower_order_final", "uni_pc")


@pytest.mark.parametrize("inner", ["analytic_start", "detail"])
def test_cfg_pp_refuses_what_answers_for_the_model_inside(inner):
    """CFG++ asks the model itself, so what changes the answer goes around it."""
    wrong = kd.get_modifier("cfg_pp", kd.get_modifier(inner, "euler"))
    right = kd.get_sampler(
        "euler", cfg_pp=True, **({"detail": 0.1} if inner == "detail" else {"sigma_data": 1})
    )
    grid = levels("ve", 6)
    with pytest.raises(ParameterError, match="wrap it the other way round"):
        wrong.plan(grid)
    assert right.plan(grid).evaluations <= 6


def test_start_solvers_with_levels_of_their_own_are_refused():
    """A one-step solver that visits other levels than the run does cannot take its first steps."""
    fewer = kd.get_sampler("heun", discard_penultimate=True)
    with pytest.raises(ParameterError, match="visits levels of its own"):
        kd.get_sampler("dpmpp_2m", start_solver=fewer).plan(levels("ve", 6))
