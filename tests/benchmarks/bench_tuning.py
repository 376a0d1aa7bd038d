"""Tuning for few steps: a plan of 6 model calls for dpmpp_2m, against the best schedule of the catalogue.

Held mixtures of normals in 2, 64 and 768 dimensions, and the 1,797 digits (the mixture that ``digits-exact``
is, worked on in a batch). A teacher of 400 steps says where each start belongs. Levels and weights are tuned
on 256 starts, with 256 to validate; the error is the median over the held-out starts, 1,024 of them, of the
root mean square of the difference from the teacher.

What a tuned plan is compared with is the schedule that is best on those very starts: the catalogue's choice
is made with hindsight, the tuned plan's without. Every schedule that takes its range from the caller, or from
a process of log-uniform levels, is in. The seconds are those of the teacher and of the tuning, on
one thread; a busy machine takes longer than it computes.
`grid alone` is the ratio where the levels alone are tuned and the weights stay the sampler's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accuracy_problems import PROBLEMS, Held
from harness import Row, geometric, parser, pinned, save, show

import kdiff_core as kd
from kdiff_core.testing.problems import random_state
from kdiff_core.tuning.grids import catalogue

STEPS, TEACHER_STEPS = 6, 400
STARTS, QUICK_STARTS = (256, 256, 1024), (64, 64, 128)
ITERATIONS, QUICK_ITERATIONS = 120, 10
SAMPLER = "dpmpp_2m"


def _wide(path: str) -> Held:
    """Twelve components of different widths, far apart, in 768 dimensions."""
    means = random_state(3, batch=12, shape=(768,), scale=1.0)
    variances = torch.linspace(0.05, 0.4, 12, dtype=torch.float64)
    return Held("768 dims", path, torch.ones(12).double(), means, variances)


CASES: dict[str, tuple[Callable[[str], Held], float, float]] = {
    "2 dims": (PROBLEMS["2 dims"], 0.03, 14.6),
    "64 dims": (PROBLEMS["64 dims"], 0.03, 14.6),
    "768 dims": (_wide, 0.03, 14.6),
    "digits": (PROBLEMS["digits"], 0.02, 20.0),
}


def lessons_of(name: str, starts: Sequence[int], seed: int, teacher_steps: int = TEACHER_STEPS) -> Any:
    """Run the teacher of a case."""
    make, low, high = CASES[name]
    problem = make("ve")
    return kd.Lessons.of(
        problem,
        starts=starts,
        seed=seed,
        teacher_steps=teacher_steps,
        sigma_min=low,
        sigma_max=high,
        process=kd.get_process("ve", sigma_min=low, sigma_max=high),
        shape=problem.means.shape[1:],
        batch=512,
    )


def measure(name: str, seed: int, quick: bool) -> Row:
    """The row of a case."""
    begin, computed = time.perf_counter(), time.process_time()
    lessons = lessons_of(name, QUICK_STARTS if quick else STARTS, seed, 60 if quick else TEACHER_STEPS)
    iterations = QUICK_ITERATIONS if quick else ITERATIONS
    tuned = kd.tune_weights(SAMPLER, lessons, STEPS, iterations=iterations)
    seconds, computed = time.perf_counter() - begin, time.process_time() - computed
    grid = kd.tune_grid(SAMPLER, lessons, STEPS, iterations=iterations)
    solver = kd.get_sampler(SAMPLER)
    known = catalogue(solver, lessons, STEPS)
    held = {one.name: lessons.error(solver, one.grid, "held_out") for one in known}
    best = min(held, key=held.__getitem__)
    found = tuned.provenance["errors"]["tuned"]
    return {
        "problem": name,
        "schedules": len(known),
        "best untuned": best,
        "its error": held[best],
        "tuned": found["held_out"],
        "ratio": found["held_out"] / held[best],
        "grid alone": grid.provenance["errors"]["tuned"]["held_out"] / held[best],
        "on validation": found["validation"],
        "on training": found["train"],
        "seconds": seconds,
        "of a CPU": computed,
    }


def verdict(rows: Sequence[Row]) -> str:
    """Whether the error is halved in the geometric mean, and nowhere larger."""
    mean, worst = geometric([row["ratio"] for row in rows]), max(row["ratio"] for row in rows)
    return (
        f"tuned over best untuned, geometric mean: {mean:.3f} ({'at most' if mean <= 0.5 else 'ABOVE'} 0.5); "
        f"worst {worst:.3f} ({'none worse' if worst <= 1 else 'WORSE'}); longest tuning "
        f"{max(row['seconds'] for row in rows):.0f} s, {max(row['of a CPU'] for row in rows):.0f} s of a CPU"
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    result = parser(__doc__, "two dimensions, few starts, few iterations")
    result.add_argument("--problem", choices=CASES, action="append", help="this one alone; may be repeated")
    result.add_argument("--seed", type=int, default=0, help="of the starts")
    return result.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = arguments(argv)
    rows: list[Row] = []
    with pinned(False):
        for name in args.problem or (["2 dims"] if args.quick else CASES):
            rows.append(measure(name, args.seed, args.quick))
            print(f"{name}: {rows[-1]['seconds']:.0f} s", file=sys.stderr)
    show(f"{SAMPLER}, {STEPS} model calls, held-out starts (torch {torch.__version__})", rows)
    print(f"\n{verdict(rows)}")
    save(args.json, {"tuning": rows})


if __name__ == "__main__":
    main()
