"""Tuning a grid: by dynamic programming over the teacher's trajectories, and by gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..errors import CapabilityError, KdiffError, ParameterError
from ..grid import Grid
from ..lookup import get_sampler, get_schedule, list_schedules
from ..path import as_path
from ..setup import at_least_one
from ..tracing import trace
from .fitting import fit
from .lessons import Lessons, deterministic, distance
from .report import Untuned, report
from .tuned import Tuned
from .weights import level_shares, levels_of

METHODS = ("gradient", "dynamic")
# Of the teacher's trajectories: how many levels dynamic programming chooses from, and on how many starts.
WAYPOINTS, WITNESSES = 60, 64
# From how many grids the gradient goes down: there are many hollows.
TRIES = 2


def tune_grid(
    sampler: Any,
    lessons: Lessons,
    steps: int = 6,
    *,
    method: str = "gradient",
    schedule: Any = None,
    iterations: int = 60,
    patience: int = 4,
    progress: bool = False,
) -> Tuned:
    """Tune the levels of a run of few steps.

    ``"dynamic"`` chooses levels among those of the teacher so that the errors of single Euler steps between
    its states sum to the least (after GITS: Chen et al. 2024, arXiv:2405.11326); it only calls the denoiser.
    ``"gradient"`` goes on from the two best of that grid and the untuned ones, through the weights of the
    sampler's plan. Of all these the grid that is best on the validation split is returned.

    Args:
        sampler: A deterministic sampler, or its name.
        lessons: From `Lessons.of`.
        steps: Number of steps.
        method: ``"gradient"`` or ``"dynamic"``.
        schedule: What to begin with and to be compared with. Default: the best of the catalogue.
        iterations: Most iterations.
        patience: Looks at the validation split, one in five iterations, without progress before it stops.
        progress: Show it.

    Raises:
        ParameterError: An argument is out of its range.
        CapabilityError: The sampler draws noise or places levels itself; or the denoiser cuts the gradient.
        TraceError: The sampler has no plan and the method is ``"gradient"``.
    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r}: must be 'gradient' or 'dynamic'")
    solver = tunable(sampler, steps, iterations, patience)
    untuned = baselines(solver, lessons, steps, schedule)
    settings = {"method": method, "iterations": iterations, "patience": patience}
    grid = best_grid(solver, lessons, untuned, method, iterations, patience, progress)
    return report("grid", solver, lessons, untuned[0], grid, settings)


def best_grid(
    solver: Any,
    lessons: Lessons,
    untuned: Sequence[Untuned],
    method: str,
    iterations: int,
    patience: int,
    progress: bool,
) -> Grid:
    """Return the grid that is best on the validation split; see `tune_grid`."""
    first = untuned[0].grid
    dynamic = dynamic_grid(lessons, first.steps)
    grids = [first, dynamic]
    if method == "gradient" and first.steps > 1:
        known = [*untuned, Untuned("dynamic", dynamic, lessons.error(solver, dynamic, "train"))]
        for begin in _distinct(sorted(known, key=lambda one: one.error))[:TRIES]:
            grids.append(_by_gradient(solver, lessons, begin, iterations, patience, progress))
    return min(grids, key=lambda grid: lessons.error(solver, grid, "validation"))


def _distinct(grids: Sequence[Untuned]) -> list[Grid]:
    """Return the grids without those that are another's but for rounding."""
    found: list[Grid] = []
    for _, grid, _ in grids:
        if not any(all(map(math.isclose, grid, other)) for other in found):
            found.append(grid)
    return found


def _by_gradient(
    solver: Any, lessons: Lessons, begin: Grid, iterations: int, patience: int, progress: bool
) -> Grid:
    path, (low, high) = as_path(lessons.path), (lessons.sigma_min, lessons.sigma_max)
    if tuple(solver.levels(begin, path, lessons.process)) != tuple(begin):
        raise CapabilityError(f"{solver!r} places levels of its own; its grid cannot be tuned by gradient")
    logits = torch.tensor(level_shares(begin, low), dtype=torch.float64).log().requires_grad_()
    found = fit(
        lambda: trace(solver, levels_of(logits, high, low), path, lessons.process),
        [logits],
        lessons,
        iterations=iterations,
        patience=patience,
        label="grid",
        progress=progress,
    )
    return Grid.of(found.plan.levels)


# -- untuned grids


def tunable(sampler: Any, steps: int, iterations: int = 1, patience: int = 1) -> Any:
    """Return a sampler, refused if it cannot be tuned; numbers are checked as well.

    Raises:
        ParameterError: A number is no whole number of at least 1.
        CapabilityError: The sampler draws noise.
    """
    at_least_one("steps", steps, "steps")
    at_least_one("iterations", iterations, "iterations")
    at_least_one("patience", patience, "looks")
    solver = get_sampler(sampler)
    deterministic(solver)
    return solver


def baselines(solver: Any, lessons: Lessons, steps: int, schedule: Any = None) -> list[Untuned]:
    """Return the grids that tuning may begin with: a schedule's, or the catalogue's, the best first."""
    if schedule is None:
        return catalogue(solver, lessons, steps)
    grid = untuned_grid(schedule, lessons, steps)
    name = schedule if isinstance(schedule, str) else repr(schedule)
    return [Untuned(name, grid, lessons.error(solver, grid, "train"))]


def catalogue(sampler: Any, lessons: Lessons, steps: int) -> list[Untuned]:
    """Return the grids of all schedules that need no option, the best on the training starts first.

    Left out are those that begin elsewhere, do not end in 0 or take another number of steps, and those that
    need a process where the lessons have none.

    Args:
        sampler: A sampler, or its name.
        lessons: From `Lessons.of`.
        steps: Number of steps.

    Raises:
        ParameterError: No schedule is left.
    """
    solver, found = get_sampler(sampler), []
    for entry in list_schedules():
        try:
            grid = untuned_grid(entry.id, lessons, steps)
            found.append(Untuned(entry.name, grid, lessons.error(solver, grid, "train")))
        except KdiffError:
            continue
    if not found:
        raise ParameterError(f"no schedule gives {steps} steps from {lessons.sigma_max:.6g} to 0; give one")
    return sorted(found, key=lambda one: one.error)


def untuned_grid(schedule: Any, lessons: Lessons, steps: int) -> Grid:
    """Return the levels that a schedule gives for some lessons.

    Raises:
        ParameterError: They do not begin where the lessons do, do not end in 0, or are of other steps.
    """
    made = get_schedule(schedule)
    low, high = lessons.sigma_min, lessons.sigma_max
    grid: Grid = made(steps, sigma_min=low, sigma_max=high, process=lessons.process)
    if grid.steps != steps or grid[-1] != 0 or not math.isclose(grid[0], high, rel_tol=1e-6):
        raise ParameterError(
            f"schedule={schedule!r:.60}: gives {grid!r}; needed are {steps} steps from {high:.6g} to 0"
        )
    return Grid.of([high, *tuple(grid)[1:]])


# -- dynamic programming


class Waypoints(NamedTuple):
    """A teacher's levels, the last 0, with its states there, and the model's outputs above 0."""

    levels: tuple[float, ...]
    states: list[Any]
    denoised: list[Any]


def dynamic_grid(lessons: Lessons, steps: int) -> Grid:
    """Return the grid whose Euler steps, each from the teacher's own state, err the least in sum.

    Args:
        lessons: From `Lessons.of`.
        steps: Number of steps, at most `WAYPOINTS`.

    Raises:
        ParameterError: More steps than levels to choose from.
    """
    if steps > WAYPOINTS:
        raise ParameterError(f"steps={steps}: dynamic programming chooses among {WAYPOINTS} levels")
    way = _waypoints(lessons)
    count = len(way.levels)
    costs = [[0.0] * count for _ in range(count)]
    for i in range(count - 1):
        for j in range(i + 1, count):
            ratio = way.levels[j] / way.levels[i]
            reached = way.states[i] * ratio + way.denoised[i] * (1 - ratio)
            costs[i][j] = float(distance(reached, way.states[j]).mean())
    return Grid.of([way.levels[i] for i in cheapest_way(costs, steps)])


def cheapest_way(costs: Sequence[Sequence[float]], steps: int) -> list[int]:
    """Return the places, from the first to the last, of the way with so many steps that costs the least.

    Args:
        costs: ``costs[i][j]``: cost of a step from place `i` to a later place `j`.
        steps: Number of steps, at least 1 and fewer than places.
    """
    last = len(costs) - 1
    # From each place: what the rest costs with so many steps left, and the next place.
    rest = [[row[last] for row in costs]]
    rest[0][last] = math.inf
    choice: list[list[int]] = []
    for _ in range(steps - 1):
        totals, following = [], []
        for i in range(last + 1):
            ways = [(costs[i][j] + rest[-1][j], j) for j in range(i + 1, last)]
            total, j = min(ways, default=(math.inf, last))
            totals.append(total)
            following.append(j)
        rest.append(totals)
        choice.append(following)
    places = [0]
    for following in reversed(choice):
        places.append(following[places[-1]])
    return [*places, last]


def _waypoints(lessons: Lessons) -> Waypoints:
    """Run the teacher again, on a few starts, over levels even in log sigma among which to choose."""
    part = next(lessons.train.chunks(min(WITNESSES, lessons.batch)))
    solver, ratio = get_sampler("dpmpp_2m"), lessons.sigma_min / lessons.sigma_max
    fine = 2 * WAYPOINTS
    grid = Grid.of([*(lessons.sigma_max * ratio ** (i / (fine - 1)) for i in range(fine)), 0.0])
    infos: list[Any] = []
    with torch.no_grad():
        end = solver(
            lessons.denoiser, part.x, grid, cond=part.cond, process=lessons.process, callback=infos.append
        )
    kept = infos[:: fine // WAYPOINTS]
    return Waypoints(
        (*(info.sigma for info in kept), 0.0),
        [*(info.x for info in kept), end],
        [info.denoised for info in kept],
    )
