"""The number of steps for a wanted error."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConvergenceError, ParameterError
from ..grid import Grid
from ..setup import at_least_one
from .grids import METHODS, baselines, best_grid, tunable
from .lessons import Lessons
from .report import Untuned, report
from .tuned import Tuned


def tune_steps(
    sampler: Any,
    lessons: Lessons,
    error: float,
    *,
    most: int = 64,
    method: str | None = None,
    schedule: Any = None,
    iterations: int = 60,
    patience: int = 4,
    progress: bool = False,
) -> Tuned:
    """Return the grid with the fewest steps found whose error on the validation split is as wanted.

    Numbers of steps are doubled until one will do, then halved in between: one step fewer does not do,
    and numbers further below, where the error need not fall evenly, are not all looked at. What was tried
    stands in the provenance.

    Args:
        sampler: A deterministic sampler, or its name.
        lessons: From `Lessons.of`.
        error: Largest median error from the teacher's results, above 0, in units of the data.
        most: Most steps to try.
        method: How to tune the grid of each number of steps; see `tune_grid`. Default: not at all.
        schedule: The schedule. Default: for each number of steps the best of the catalogue.
        iterations: As in `tune_grid`.
        patience: As in `tune_grid`.
        progress: Show it.

    Raises:
        ParameterError: An argument is out of its range.
        ConvergenceError: Not even `most` steps come so near.
        CapabilityError: As in `tune_grid`.
    """
    if not (isinstance(error, int | float) and math.isfinite(error) and error > 0):
        raise ParameterError(f"error={error!r}: give a finite number above 0, in units of the data")
    if method is not None and method not in METHODS:
        raise ParameterError(f"method={method!r}: must be 'gradient', 'dynamic' or None")
    at_least_one("most", most, "steps")
    solver = tunable(sampler, most, iterations, patience)
    tried: dict[int, tuple[Untuned, Grid, float]] = {}

    def will_do(steps: int) -> bool:
        untuned = baselines(solver, lessons, steps, schedule)
        grid = untuned[0].grid
        if method is not None:
            grid = best_grid(solver, lessons, untuned, method, iterations, patience, progress)
        tried[steps] = untuned[0], grid, lessons.error(solver, grid, "validation")
        return tried[steps][2] <= error

    high = 1
    while not will_do(high):
        if high == most:
            near = min(tried, key=lambda n: tried[n][2])
            raise ConvergenceError(
                f"error={error:.3g}: {solver!r} comes to {tried[near][2]:.3g} in {near} steps, the best that "
                f"was tried up to most={most}"
            )
        high = min(2 * high, most)
    low = max((n for n in tried if n < high), default=0)  # does not do
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if will_do(middle) else (middle, high)
    untuned, grid, _ = tried[high]
    settings = {
        "error": error, "most": most, "method": method, "iterations": iterations, "patience": patience,
        "tried": {str(n): one[2] for n, one in sorted(tried.items())},
    }  # fmt: skip
    return report("steps", solver, lessons, untuned, grid, settings)
