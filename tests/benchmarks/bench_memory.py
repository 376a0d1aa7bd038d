"""Peak memory: the most state-sized tensors alive at once in a run, beside the least that the plan needs.

The model returns a fresh tensor and keeps nothing, the noise is drawn afresh. kdiff's bound is its plan's
minimum and 2: the initial state, which the plan would write over but which is the caller's; and the copy of
a final state that is memory of the model's (where a grid ends in 0 it is the last output).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from counting import Counting, new_tensor_model
from harness import Row, parser, save, show
from peers import NOISY, SOLVERS, Problem, missing, run_diffusers, run_k_diffusion
from torch import Tensor

import kdiff_core as kd

SHAPE = (1, 4, 16, 16)
# The caller's initial state, and the copy of a result that is the model's memory.
EXTRA = 2


class Fresh(Problem):
    """A problem whose noise is a new tensor at each draw."""

    def draw(self, *interval: Any, **options: Any) -> Tensor:
        """New noise."""
        return torch.randn(self.shape)


def problem(steps: int) -> Problem:
    """The problem to count on."""
    return Fresh(SHAPE, steps, model=new_tensor_model)


def minimum(solver: str, steps: int) -> int:
    """The least number of live states, from the plan that a run with keyed noise uses."""
    return kd.get_sampler(solver).plan(problem(steps).sigmas).increments().buffers


def kdiff_run(solver: str, given: Problem) -> Callable[[], Any]:
    """A run with keyed noise, or with none."""
    sampler, seed = kd.get_sampler(solver), 0 if solver in NOISY else None
    return lambda: sampler(new_tensor_model, given.x, given.sigmas, seed=seed)


def peak(run: Callable[[], Any] | None, given: Problem) -> float:
    """Most live state-sized tensors of a run, its initial state included."""
    if run is None:
        return math.nan
    with Counting(given.x.numel(), (given.x,)) as counting:
        run()
    return counting.peak


def peaks(solver: str, steps: int) -> dict[str, float]:
    """Peaks of all peers."""
    given = problem(steps)
    given.noise = torch.empty(1)
    found = {"kdiff": peak(kdiff_run(solver, given), given)}
    if missing("k-diffusion") is None:
        found["k-diffusion"] = peak(run_k_diffusion(solver, given), given)
    if missing("diffusers") is None:
        given = problem(steps)
        found["diffusers"] = peak(run_diffusers(solver, given), given)
    return found


def memory_row(solver: str, few: int, many: int) -> Row:
    """A row of the table."""
    short, long = peaks(solver, few), peaks(solver, many)
    least = minimum(solver, few)
    row: Row = {"solver": solver, "plan's minimum": least}
    for name, value in short.items():
        row[name] = int(value) if not math.isnan(value) else None
        row[f"{name} +"] = int(long[name] - value) if not math.isnan(value) else None
    within = short["kdiff"] <= least + EXTRA and long["kdiff"] == short["kdiff"]
    return {**row, f"minimum + {EXTRA}, flat": within and minimum(solver, many) == least}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "two solvers, few steps")
    options.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    options.add_argument("--steps", nargs=2, type=int, default=[16, 32], metavar=("FEW", "MANY"))
    args: argparse.Namespace = options.parse_args(argv)
    if args.quick:
        args.solvers, args.steps = ["euler", "dpmpp_2m_sde"], [6, 8]
    few, many = args.steps
    rows = [memory_row(solver, few, many) for solver in args.solvers]
    show(f"live states at {few} steps, and (+) how many more at {many}", rows)
    save(args.json, {"memory": rows})


if __name__ == "__main__":
    main()
