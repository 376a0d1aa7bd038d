"""The benchmarks run, the peers solve the same problem, and the laws that need no clock hold."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

import kdiff_core as kd

# diffusers hands tensors to NumPy in ways that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

HERE = Path(__file__).parent
SCRIPTS = ("overhead", "memory", "tracing", "noise", "combine")
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
