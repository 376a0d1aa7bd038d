"""Solver overhead per step: kdiff, k-diffusion, diffusers and a hand-written loop on the same work.

The model hands out precomputed tensors, the noise is given, one thread is pinned. A step's time is the
difference of a run of 32 steps and one of 16, divided by 16: the median over rounds in which all peers
take turns. So what is done once a run (tracing, checks of the start) does not count, and what is done at
each step does: the check that the state is finite too, which no peer has.

Budgets (see the design): on the small state at most 1/3 of k-diffusion's time for each of six solvers and
1/5 in the geometric mean; on the large one at most 1.3 times the time of moving each operand once for
combinations of up to 3 operands, 1.5 for more, the finite check apart.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from harness import (
    SHAPES,
    Row,
    geometric,
    interleaved,
    median,
    parser,
    pinned,
    save,
    show,
)
from peers import SOLVERS, Problem, Run, missing, runs

import kdiff_core as kd
from kdiff_core import engine
from kdiff_core.plans import Combine

# The solvers that have a budget; the others are for information.
BUDGETED = ("euler", "heun", "dpm2", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde")
EACH, MEAN = 1 / 3, 1 / 5
STATES = 5  # beside the model's four outputs
PEERS = ("kdiff", "ideal", "k-diffusion", "diffusers")


def run_copy(problem: Problem, states: int) -> Run:
    """The floor: each step one ``copy_`` of a model's output into a state.

    Into one state, which stays in the cache, it is warmer than a run's operands; into several that take
    turns, colder than the memory that a run writes over.
    """
    model, targets = problem.new_model(), [problem.x.clone() for _ in range(states)]

    def run() -> torch.Tensor:
        for step in range(problem.steps):
            targets[step % states].copy_(model(None, None))
        return targets[0]

    return run


def unchecked(run: Run) -> Run:
    """A run of kdiff that does not look whether its states are finite."""

    def patched() -> torch.Tensor:
        kept, engine.all_finite = engine.all_finite, lambda leaf: True
        try:
            return run()
        finally:
            engine.all_finite = kept

    return patched


def all_runs(solver: str, problem: Problem) -> dict[str, Run]:
    """The peers, and what they are compared with."""
    found = runs(solver, problem)
    copies = {"warm copy": run_copy(problem, 1), "cold copy": run_copy(problem, STATES)}
    return {**found, "unchecked": unchecked(found["kdiff"]), **copies}


def per_step(
    solver: str, shape: tuple[int, ...], device: str, budget: float, counts: tuple[int, int], least: int
) -> dict[str, float]:
    """Time of one step of every peer, of kdiff without its finite check, and of a ``copy_``, in µs."""
    few, many = counts
    short, long = (all_runs(solver, Problem(shape, steps, device)) for steps in counts)
    pairs = {f"{name} {few}": run for name, run in short.items()}
    pairs |= {f"{name} {many}": run for name, run in long.items()}
    found = interleaved(pairs, budget, least, device)
    times = {}
    for name in short:
        rounds = zip(found[f"{name} {few}"], found[f"{name} {many}"], strict=True)
        times[name] = median([b - a for a, b in rounds]) / (many - few) * 1e6
    return times


def ratio(times: dict[str, float], peer: str) -> float:
    """Return kdiff's time over a peer's; NaN for a time that was lost in the noise of a short measurement."""
    both = (times["kdiff"], times.get(peer, 0.0))
    return both[0] / both[1] if min(both) > 0 else math.nan


def overhead_row(solver: str, times: dict[str, float], budgeted: bool) -> Row:
    """A row of the table of times."""
    row: Row = {"solver": solver, **{f"{name} µs": times.get(name) for name in PEERS}}
    row["unchecked µs"] = times["unchecked"]
    row |= {f"kdiff/{name}": ratio(times, name) for name in PEERS[1:]}
    share = ratio(times, "k-diffusion")
    known = budgeted and solver in BUDGETED and not math.isnan(share)
    return {**row, "≤ 1/3": share <= EACH if known else None}


def mean_row(rows: Sequence[Row], budgeted: bool) -> Row:
    """Geometric means over the solvers that have a budget."""
    chosen = [row for row in rows if row["solver"] in BUDGETED]
    means = {}
    for peer in PEERS[1:]:
        ratios = [r for row in chosen if not math.isnan(r := row[f"kdiff/{peer}"])]
        means[f"kdiff/{peer}"] = geometric(ratios)
    whole = {row["solver"] for row in chosen} == set(BUDGETED)
    known = budgeted and whole and not math.isnan(means["kdiff/k-diffusion"])
    verdict = means["kdiff/k-diffusion"] <= MEAN if known else None
    return {"solver": "geometric mean (budgeted)", **means, "≤ 1/3": None, "≤ 1/5": verdict}


def floor(solver: str, steps: int, copy: float) -> tuple[list[int], float, float]:
    """What the combinations of a middle step must move.

    Returns:
        The operands of each combination, the time of moving each once, and the time that the budget allows.
    """
    problem = Problem((1, 1), steps)
    plan = kd.get_sampler(solver).plan(problem.sigmas)
    operands = [len(op.terms) for op in plan.steps[steps // 2].ops if isinstance(op, Combine)]
    least = [copy * (count + 1) / 2 for count in operands]
    bars = [1.3 if count <= 3 else 1.5 for count in operands]
    return operands, sum(least), sum(a * b for a, b in zip(least, bars, strict=True))


def floor_row(solver: str, times: dict[str, float], steps: int) -> Row:
    """A row of the table that compares with the floor."""
    operands, warm, allowed = floor(solver, steps, times["warm copy"])
    cold = floor(solver, steps, times["cold copy"])[1]
    net = times["unchecked"]
    return {
        "solver": solver,
        "operands": "+".join(map(str, operands)),
        "unchecked µs": net,
        "warm floor µs": warm,
        "cold floor µs": cold,
        "kdiff/warm": net / warm,
        "ideal/warm": times["ideal"] / warm,
        "kdiff/cold": net / cold,
        "bar": allowed / warm,
        "within, warm": net <= allowed,
        "within, cold": net <= allowed * cold / warm,
    }


def measure(args: argparse.Namespace, name: str, tables: dict[str, list[Row]]) -> None:
    """Measure one shape and print its tables."""
    shape, large = SHAPES[name], name == "video"
    rows, floors = [], []
    for solver in args.solvers:
        times = per_step(solver, shape, args.device, args.seconds, tuple(args.steps), args.rounds)
        rows.append(overhead_row(solver, times, budgeted=name == "small"))
        floors.append(floor_row(solver, times, args.steps[1]))
    rows.append(mean_row(rows, budgeted=name == "small"))
    tables[name] = rows
    show(
        f"overhead per step, {name} {shape}, {args.device}",
        rows,
        "unchecked: kdiff without its finite check of each state",
    )
    if large:
        tables[f"{name} floor"] = floors
        show(f"the same against moving each operand once, {name}", floors)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    result = parser(__doc__, "one solver, the small state, few steps and rounds")
    result.add_argument("--device", default="cpu", help="cpu or cuda")
    result.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    result.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    result.add_argument("--steps", nargs=2, type=int, default=[16, 32], metavar=("FEW", "MANY"))
    result.add_argument("--seconds", type=float, default=4.0, help="for one solver and one shape")
    result.add_argument("--rounds", type=int, default=5, help="at least so many")
    args = result.parse_args(argv)
    if args.quick:
        args.shapes, args.solvers, args.seconds, args.rounds = ["small"], ["euler", "dpmpp_sde"], 0.0, 2
        args.steps = [4, 6]
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = arguments(argv)
    for peer in ("k-diffusion", "diffusers"):
        if (why := missing(peer)) is not None:
            print(f"left out: {why}")
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"--device {args.device}: torch finds no GPU here")
    tables: dict[str, list[Row]] = {}
    with pinned():
        for name in args.shapes:
            measure(args, name, tables)
    save(args.json, tables)


if __name__ == "__main__":
    main()
