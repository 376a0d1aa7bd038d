"""The benchmarks run, the peers solve the same problem, and the laws that need no clock hold."""

from __future__ import annotations

import importlib
import json
import math
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import kdiff_core as kd
from kdiff_core.testing import Gaussian
from kdiff_core.testing.measure import output_moments
from kdiff_core.testing.teacher import one_step_error

# diffusers hands tensors to NumPy in ways that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

HERE = Path(__file__).parent
SCRIPTS = (
    "overhead", "memory", "tracing", "noise", "combine", "conformance", "accuracy", "variance", "tuning",
    "serving", "brownian", "speed", "unet",
)  # fmt: skip
SOLVERS = ("euler", "heun", "dpm2", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "euler_ancestral", "lms")
# Operations that make the host wait for a device, or that copy between the two.
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::_to_copy", "aten::copy_", "aten::equal"}


@pytest.fixture
def benchmark_module(monkeypatch):
    """Import a file of this folder; afterwards nothing is left of it."""
    monkeypatch.syspath_prepend(str(HERE))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (HERE / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def peers(benchmark_module):
    return benchmark_module("peers")


@pytest.fixture
def counting(benchmark_module):
    return benchmark_module("counting")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_its_table_and_writes_json(name, benchmark_module, capsys, tmp_path):
    file = tmp_path / "rows.json"
    benchmark_module(f"bench_{name}").main(["--quick", "--json", str(file)])
    tables = json.loads(file.read_text())
    assert tables.pop("environment")["torch"] == torch.__version__
    assert tables
    assert all(tables.values())
    printed = capsys.readouterr().out
    first = str(next(iter(next(iter(tables.values()))[0].values())))
    assert first in printed


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_explains_itself(name, benchmark_module, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_module(f"bench_{name}").main(["--help"])
    assert stopped.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_threads_and_cpus_are_given_back(benchmark_module):
    before = torch.get_num_threads()
    with benchmark_module("harness").pinned():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def smooth(x, sigma, **kwargs):
    """A model in closed form: standard normal data, a little bent."""
    level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x / (1 + level**2))


@pytest.mark.parametrize("peer", ["ideal", "k-diffusion", "diffusers"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_all_peers_solve_the_same_problem(solver, peer, peers):
    if peer != "ideal" and (why := peers.missing(peer)) is not None:
        pytest.skip(why)
    problem = peers.Problem((2, 3, 5, 4), 12, dtype=torch.float64, model=smooth)
    drawn = problem.noise.clone()
    make = {"ideal": peers.run_ideal, "k-diffusion": peers.run_k_diffusion}.get(peer)
    theirs = make(solver, problem) if make else peers.run_diffusers(solver, problem, convert=True)
    if theirs is None:
        pytest.skip(f"{peer} has no {solver}")
    expected, found = theirs(), peers.run_kdiff(solver, problem)()
    # diffusers computes its levels in float32.
    bound = {"rtol": 1e-5, "atol": 1e-5} if peer == "diffusers" else {"rtol": 1e-13, "atol": 1e-13}
    torch.testing.assert_close(found, expected, **bound)
    assert torch.equal(problem.noise, drawn), "kdiff wrote over noise that is its caller's"


def counts(counting, peers, solver, steps, read=False):
    """State-sized kernels of a run, or reads of values."""
    problem = peers.Problem((2, 3, 5, 4), steps)
    run = peers.run_kdiff(solver, problem)
    run()
    with counting.Counting(problem.x.numel()) as counted:
        run()
    return counted.all["aten::_local_scalar_dense"] if read else counting.total(counted.kernels)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_runs_no_more_kernels_than_its_combinations_have_operands(solver, counting, peers):
    few, many = (counts(counting, peers, solver, steps) for steps in (16, 24))
    plan = kd.get_sampler(solver).plan(peers.Problem((1, 1), 16).sigmas)
    operands = sum(len(op.terms) for op in plan.steps[12].ops if hasattr(op, "terms"))
    assert 0 < many - few <= 8 * operands


@pytest.mark.parametrize("solver", SOLVERS)
def test_on_the_cpu_one_value_is_read_every_eight_steps(solver, counting, peers):
    """A state is looked at once every eight steps, and never more often than once a step."""
    few, many = (counts(counting, peers, solver, steps, read=True) for steps in (16, 32))
    assert many - few == 2


@pytest.mark.parametrize("solver", ["euler", "euler_ancestral"])
def test_off_the_cpu_the_loop_reads_no_value_and_copies_nothing(solver, counting, peers, monkeypatch):
    """A meta tensor has no values: reading one is an error, so a run comes to its end only by not reading.

    Not checked here: a GPU itself, and solvers that need two outputs at once, whose memory a meta tensor
    does not tell apart.
    """
    starts, calls = [], []
    # The initial state is looked at before the loop.
    monkeypatch.setattr("kdiff_core.state.all_finite", lambda leaf: bool(starts.append(leaf)) or True)
    problem = peers.Problem((2, 3, 5, 4), 8)
    sampler, x = kd.get_sampler(solver), problem.x.to("meta")
    counted = counting.Counting(x.numel())

    def model(x, sigma):
        calls.append(dict(counted.all))
        return torch.empty_like(x)

    noise = kd.noise_from(lambda a, b: torch.empty_like(x)) if solver in peers.NOISY else None
    with counted, pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        sampler(model, x, problem.sigmas, noise=noise)
    assert len(calls) == sampler.plan(problem.sigmas).evaluations
    assert len(starts) == 1
    for name in WAITING:
        assert calls[-1].get(name, 0) == calls[0].get(name, 0), name


@pytest.mark.parametrize("solver", SOLVERS)
def test_live_states_are_the_plans_minimum_and_do_not_grow(solver, benchmark_module):
    memory = benchmark_module("bench_memory")
    problems = [memory.problem(steps) for steps in (10, 20)]
    few, many = (memory.peak(memory.kdiff_run(solver, given), given) for given in problems)
    assert few == many
    assert few <= memory.minimum(solver, 10) + memory.EXTRA
    assert memory.minimum(solver, 10) == memory.minimum(solver, 20)


@pytest.fixture
def conformance(benchmark_module):
    return benchmark_module("bench_conformance")


@pytest.fixture
def boxes(benchmark_module):
    return benchmark_module("conformance_peers")


# A peer's sampler -> kdiff's of the same formula.
SAME = {
    "kdiff": {"heun": "heun", "dpm2": "dpm2", "lms": "lms", "dpmpp_2m": "dpmpp_2m"},
    "k-diffusion": {"euler": "euler", "heun": "heun", "dpm_2": "dpm2", "lms": "lms", "dpmpp_2m": "dpmpp_2m"},
    "diffusers": {
        "EulerDiscrete": "euler",
        "HeunDiscrete": "heun",
        "KDPM2Discrete": "dpm2",
        "LMSDiscrete": "lms",
        "DPMSolverMultistep, 2": "dpmpp_2m",
    },
    "azula": {"Heun": "heun", "zAB, order=4": "lms", "xEAB, order=2": "dpmpp_2m"},
}


@pytest.mark.parametrize(("peer", "name"), [(peer, name) for peer, names in SAME.items() for name in names])
def test_a_black_box_with_exact_history_errs_as_the_kits_teacher_says(peer, name, conformance, boxes):
    """The technique is right: the error, not only its order, is the one of exact history in 40 digits."""
    if (why := boxes.missing_peer(peer)) is not None:
        pytest.skip(why)
    known = {subject.name: subject for subject in conformance.subjects(peer)}
    # xEAB integrates the interpolation, 2M takes its middle: other errors, of one order and size. KDPM2's
    # middle level is a float32.
    rtol = 0.5 if name.startswith("xEAB") else 1e-3
    ratios = [0.6, 1.7, 1.2, 0.8]
    for h in (0.08, 0.02):
        expected = one_step_error(kd.get_sampler(SAME[peer][name]), "ve", h, ratios, 0.3, plain=True)
        assert math.isclose(conformance.one_step_error(known[name], h, ratios, 0.3), expected, rel_tol=rtol)


def two_steps(power):
    """A function of k-diffusion's shape: 2M, with its ratio of steps to a power that should be 1."""

    def sample(model, x, sigmas, disable=None):
        old = last = None
        for sigma, sigma_next in pairwise(sigmas):
            denoised, size = model(x, sigma), (sigma / sigma_next).log()
            change = 0 if old is None else (denoised - old) * (size / last) ** power
            x = torch.lerp(denoised + change / 2, x, sigma_next / sigma)
            old, last = denoised, size
        return x

    return sample


@pytest.mark.parametrize(
    ("power", "found"),
    [(1, "holds"), *((power, "order 1, not 2 (it is on even steps)") for power in (-1, 0))],
)
def test_a_planted_wrong_step_ratio_is_found(power, found, conformance, boxes):
    """Whole runs on smooth levels do not show it; one step with exact history on uneven ones does."""
    run = partial(boxes.run_function, two_steps(power))
    row = conformance.measure(boxes.Subject("planted", 2, run, memory=1), quick=True)
    assert row["verdict"] == found
    assert row["run"] > 1.7


def ancestral(amount):
    """A function of k-diffusion's shape: an ancestral Euler step with some of its noise."""

    def sample(model, x, sigmas, noise_sampler=None, disable=None):
        for sigma, sigma_next in pairwise(sigmas):
            down = sigma_next**2 / sigma
            up = (sigma_next**2 - down**2).sqrt() * amount
            x = torch.lerp(model(x, sigma), x, down / sigma) + up * noise_sampler(sigma, sigma_next)
        return x

    return sample


@pytest.mark.parametrize(("amount", "found"), [(1.0, "holds"), (0.9, "wrong distribution")])
def test_a_planted_wrong_amount_of_noise_is_found(amount, found, conformance, boxes):
    """Its distribution does not come nearer to the exact one with more steps."""
    run = partial(boxes.run_function, ancestral(amount))
    row = conformance.measure(boxes.Subject("planted", None, run, weak=1), quick=True)
    assert row["verdict"] == found


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_3m_sde"])
def test_moments_of_a_black_box_are_those_of_its_plan(name, conformance):
    """Unit noises put through a run give the mean and covariance that the kit reads off the plan."""
    problem, grid = Gaussian(), (5.0, 3.0, 1.1, 0.5)
    subject = next(s for s in conformance.subjects("kdiff") if s.name == name)
    found, expected = (
        conformance.moments(subject, problem, grid),
        output_moments(kd.get_sampler(name).plan(grid), problem),
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-12, atol=1e-14)


def test_a_peer_that_raises_gets_a_row_that_says_so(conformance, boxes):
    def run(*args):
        raise RuntimeError

    row = conformance.measure(boxes.Subject("planted", 1, run), quick=True)
    assert row["verdict"] == "raises RuntimeError"


def test_the_tables_come_as_markdown(conformance, capsys):
    conformance.main(["--quick", "--peer", "kdiff", "--markdown"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| sampler |")
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


@pytest.fixture
def accuracy(benchmark_module):
    return benchmark_module("bench_accuracy")


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_the_held_problems_are_the_kits_and_the_digits(path, benchmark_module):
    """Worked on in a batch, the denoisers are those of the kit's mixture and of the digits that ship."""
    problems = benchmark_module("accuracy_problems").PROBLEMS
    level = torch.tensor([0.4, 0.1, 0.9], dtype=torch.float64)
    for name, known, shape in (
        ("2 dims", kd.testing.Mixture(path), (2,)),
        ("digits", kd.get_denoiser("digits-exact", path=path), (1, 8, 8)),
    ):
        x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = problems[name](path)(x.flatten(1), level)
        torch.testing.assert_close(found, known(x, level).flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_the_reference_is_where_fine_runs_go(path, accuracy):
    """A run of 400 steps of order 4 to a level of 0.002 comes to 1e-5 of the reference."""
    problem, steps = accuracy.PROBLEMS["2 dims"](path), 400
    grid = accuracy.GRIDS["VE, log-uniform" if path == "ve" else "flow, log-uniform"][1](steps)
    assert 0 < problem.error(kd.get_sampler("etdrk4")(problem, problem.start(grid[0]), grid), grid[0]) < 1e-5


@pytest.mark.parametrize("budget", [5, 8, 35])
def test_a_budget_is_spent_as_far_as_it_goes(budget, accuracy):
    """The number of steps is the largest whose calls the budget allows, and 0 where none is."""
    for count in (lambda n: n, lambda n: 2 * n - 1, lambda n: 3 * n, lambda n: n - 1, lambda n: 4 * n + 3):
        steps = accuracy.most_steps(count, budget)
        assert count(steps + 1) > budget
        assert steps == 0 or 0 < count(steps) <= budget
    assert accuracy.most_steps(lambda n: 0, budget) == 0


def test_the_verdict_names_where_a_peer_is_better(accuracy):
    """An error above that of the best peer by more than rounding is named, with the peer."""
    rows = [
        {"library": "kdiff", "sampler": "a", 5: 1.0, 8: 0.5},
        {"library": "kdiff", "sampler": "b", 5: math.nan, 8: 0.7},
        {"library": "diffusers", "sampler": "c", 5: 1.0001, 8: 0.4},
    ]
    compared = accuracy.compare(rows, (5, 8), problem="p", grid="g")
    assert [row["kdiff"] for row in compared] == ["a", "a"]
    assert accuracy.verdict(compared).endswith("no, not at\n  p, g, 8: 1.250 (diffusers: c)")
    assert accuracy.verdict(compared[:1]).endswith("yes, at all 1")


def test_variances_are_those_of_many_samples(benchmark_module):
    """The ratio that is computed is the one that 40,000 samples have, to 3 %."""
    variance = benchmark_module("bench_variance")
    levels, problem = variance.GRIDS["ve"](10), Gaussian("ve", 0.0, (0.25,))
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 1, dtype=torch.float64, generator=random) * math.sqrt(levels[0] ** 2 + 0.25)
    sampler = kd.get_sampler("euler_ancestral")
    found = float(sampler(problem, x, levels, noise=kd.noise_from(random)).var()) / 0.25
    row = variance.own("euler_ancestral", sampler, "ve", 0.25, (10,))
    assert row["calls"] == 10
    assert math.isclose(row[10], found, rel_tol=0.03)
