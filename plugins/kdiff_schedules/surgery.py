"""Grids cut and put together. Slices (``grid[5:]``) cut too; rising grids are `kdiff_core.Grid.rising`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from kdiff_core.errors import GridError
from kdiff_core.grid import Grid


def split(levels: Iterable[Any], step: int) -> tuple[Grid, Grid]:
    """Cut a grid in two that share the level at a step.

    Args:
        levels: A grid, or its levels.
        step: Number of steps of the first part, at least 1 and below that of the grid.

    Raises:
        GridError: A part has no step.
    """
    grid = Grid.of(levels)
    if not 0 < step < grid.steps:
        raise GridError(f"split: step={step} of {grid.steps} steps; cut after step 1 to {grid.steps - 1}")
    return grid[: step + 1], grid[step:]


def split_at(levels: Iterable[Any], sigma: float) -> tuple[Grid, Grid]:
    """Cut a grid in two at a level, which becomes a level of both; no step is lost, one is cut in two.

    Raises:
        GridError: The level is not within the grid.
    """
    grid = Grid.of(levels)
    if not grid[-1] < sigma < grid[0]:
        raise GridError(f"split_at: sigma={sigma} must be between {grid[-1]} and {grid[0]}")
    above, below = [v for v in grid if v > sigma], [v for v in grid if v < sigma]
    return Grid.of([*above, sigma]), Grid.of([sigma, *below])


def concatenate(first: Iterable[Any], second: Iterable[Any]) -> Grid:
    """Put two grids in a row; where the first ends at the level that the second begins with, it counts once.

    Raises:
        GridError: The second does not go on below the first.
    """
    above, below = list(Grid.of(first)), list(Grid.of(second))
    return Grid.of([*above, *(below[1:] if below[0] == above[-1] else below)])


def invert(levels: Iterable[Any]) -> Grid:
    """Return the grid of a run from data to noise: the levels above 0, rising."""
    return Grid.rising([level for level in reversed(list(Grid.of(levels))) if level > 0])


def rescale(levels: Iterable[Any], sigma_min: float, sigma_max: float) -> Grid:
    """Bring a grid to another range, by a line in the logarithm of its levels; a last 0 stays.

    Args:
        levels: A grid, or its levels; two above 0 at least.
        sigma_min: The lowest level above 0.
        sigma_max: The highest.

    Raises:
        GridError: There is but one level above 0, or no range.
    """
    grid = list(Grid.of(levels))
    above = [level for level in grid if level > 0]
    if len(above) < 2 or not 0 < sigma_min < sigma_max < math.inf:
        raise GridError(
            f"rescale: {len(above)} levels above 0 to [{sigma_min}, {sigma_max}]; there must be two or more, "
            "and the range must go up"
        )
    scale = math.log(sigma_max / sigma_min) / math.log(above[0] / above[-1])
    between = [sigma_min * math.exp(math.log(v / above[-1]) * scale) for v in above[1:-1]]
    return Grid.of([sigma_max, *between, sigma_min, *grid[len(above) :]])
