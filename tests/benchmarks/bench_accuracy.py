"""Error against model calls: every deterministic sampler of kdiff beside those of its peers.

Held mixtures of normals, whose denoiser is known: in 2 and in 64 dimensions, and the 1,797 digits. Every
sampler gets the same states, in float64, and the same kind of grid that ends in 0, with as many steps as a
budget of model calls allows (5, 8, 10, 15, 20, 35; counted, not believed). One that cannot step to 0 ends
with the denoised state, a call that is counted too. Samplers that place their own levels get the first and
the last; adaptive ones the smallest tolerance that fits.

The error is the median over the samples of the root mean square of the difference from the probability flow's
solution at level 0 (DOP853, 1e-10). The verdict at the end says whether the best sampler of kdiff is
anywhere worse than the best of its peers.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from accuracy_peers import TOLERANCES, Counted, Run, Solver, solvers
from accuracy_problems import BUDGETS, GRIDS, PROBLEMS, Grid, Held
from harness import Row, markdown, parser, pinned, save, show

LIBRARIES = ("kdiff", "diffusers", "k-diffusion", "azula")
# Two errors that agree to this are the same method's: some peers keep their levels in float32.
SAME = 1e-3


@cache
def calls(solver: Solver, path: str, grid: Grid, steps: int) -> int:
    """Number of model calls of a run, by a model that costs nothing; 0 where it comes to no end."""
    if solver.count is not None:
        return solver.count(grid(steps))
    model = Counted(lambda x, sigma: 0.5 * x, path)
    try:
        solver.run(model, torch.ones(1, 2, dtype=torch.float64), grid(steps))
    except Exception:  # whatever a peer raises: it cannot be run on so few levels
        return 0
    return model.calls


def error(run: Run, problem: Held, levels: Sequence[float]) -> tuple[int, float]:
    """Model calls and error of a run; nan where it fails."""
    model = Counted(problem, problem.path)
    try:
        end = run(model, problem.start(levels[0]), levels)
    except Exception:  # whatever a peer raises is the finding
        return model.calls, math.nan
    return model.calls, problem.error(end, levels[0])


def errors(solver: Solver, problem: Held, grid: Grid, budgets: Sequence[int]) -> dict[int, float]:
    """The error at each budget that the solver can keep."""
    if solver.by_tolerance is not None:
        tried = [error(solver.by_tolerance(rtol), problem, grid(2)) for rtol in TOLERANCES]
        fits = {b: [e for count, e in tried if 0 < count <= b and math.isfinite(e)] for b in budgets}
        return {b: found[0] for b, found in fits.items() if found}
    count = partial(calls, solver, problem.path, grid)
    steps = {budget: most_steps(count, budget) for budget in budgets}
    return {b: error(solver.run, problem, grid(n))[1] for b, n in steps.items() if n}


def most_steps(count: Callable[[int], int], budget: int) -> int:
    """The largest number of steps whose calls, which grow with it, a budget allows; 0 where none is."""
    n = max(1, round(10 * budget / max(count(10), 1)))
    while n and count(n) > budget:
        n -= 1
    while n and count(n + 1) <= budget and n < 2 * budget:
        n += 1
    return n if n and count(n) else 0


def best(rows: Sequence[Row], budget: int) -> Row | None:
    """The row of the smallest error at a budget."""
    known = [row for row in rows if math.isfinite(row.get(budget, math.nan))]
    return min(known, key=lambda row: row[budget], default=None)


def compare(rows: Sequence[Row], budgets: Sequence[int], **where: str) -> list[Row]:
    """A row for each budget: the best of kdiff, the best of all others."""
    ours = [row for row in rows if row["library"] == "kdiff"]
    theirs = [row for row in rows if row["library"] != "kdiff"]
    found: list[Row] = []
    for budget in budgets:
        mine, other = best(ours, budget), best(theirs, budget)
        row: Row = {**where, "calls": budget}
        if mine is not None:
            row |= {"kdiff": mine["sampler"], "error": mine[budget]}
        if other is not None:
            row |= {"best peer": f"{other['library']}: {other['sampler']}", "its error": other[budget]}
        if mine is not None and other is not None:
            row["ratio"] = mine[budget] / other[budget]
        found.append(row)
    return found


def verdict(rows: Sequence[Row]) -> str:
    """Whether kdiff is anywhere worse than the best of the peers, and where."""
    compared = [row for row in rows if "ratio" in row]
    if not compared:
        return "best of ours never worse than best of theirs: nothing to compare"
    worse = [row for row in compared if row["ratio"] > 1 + SAME]
    where = [f"{r['problem']}, {r['grid']}, {r['calls']}: {r['ratio']:.3f} ({r['best peer']})" for r in worse]
    told = "\n  ".join(["no, not at", *where]) if worse else f"yes, at all {len(compared)}"
    return f"best of ours never worse than best of theirs: {told}"


def measure(
    problem: Held, grid: Grid, libraries: Sequence[str], budgets: Sequence[int], quick: bool
) -> list[Row]:
    """A row for each solver: its error at each budget."""
    rows: list[Row] = []
    for library in libraries:
        try:
            chosen = solvers(library, problem.path)
        except ImportError as reason:
            print(f"left out: {reason}", file=sys.stderr)
            continue
        for solver in chosen[:: max(1, len(chosen) // 4)] if quick else chosen:
            row = {"library": library, "sampler": solver.name}
            rows.append({**row, **errors(solver, problem, grid, budgets)})
    return rows


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    result = parser(__doc__, "one problem, two budgets, kdiff alone, four samplers")
    result.add_argument("--all", action="store_true", help="print every sampler's errors too")
    result.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    only = "this one alone; may be repeated"
    result.add_argument("--problem", choices=PROBLEMS, action="append", help=only)
    result.add_argument("--grid", choices=GRIDS, action="append", help=only)
    result.add_argument("--library", choices=LIBRARIES, action="append", help=only)
    return result.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = arguments(argv)
    problems = args.problem or (["2 dims"] if args.quick else list(PROBLEMS))
    grids = args.grid or (["VE, Karras"] if args.quick else list(GRIDS))
    libraries = args.library or (["kdiff"] if args.quick else LIBRARIES)
    budgets = BUDGETS[:2] if args.quick else BUDGETS
    tables: dict[str, list[Row]] = {"best": []}
    with pinned(False):
        for name in problems:
            for grid_name in grids:
                begin, (path, grid) = time.perf_counter(), GRIDS[grid_name]
                rows = measure(PROBLEMS[name](path), grid, libraries, budgets, args.quick)
                tables[f"{name}, {grid_name}"] = rows
                tables["best"] += compare(rows, budgets, problem=name, grid=grid_name)
                spent = time.perf_counter() - begin
                print(f"{name}, {grid_name}: {len(rows)} samplers, {spent:.0f} s", file=sys.stderr)
    for title, rows in tables.items():
        if title == "best" or args.all:
            print(f"\n### {title}\n\n{markdown(rows)}") if args.markdown else show(title, rows)
    print(f"\n{verdict(tables['best'])}")
    save(args.json, tables)


if __name__ == "__main__":
    main()
