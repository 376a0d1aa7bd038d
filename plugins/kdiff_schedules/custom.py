"""A schedule of the user's own levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from kdiff_core.errors import GridError, ParameterError
from kdiff_core.grid import Grid

from .range import count

if TYPE_CHECKING:
    from kdiff_core.protocols import Process


def _grid(levels: Iterable[float] | None) -> Grid | None:
    return None if levels is None else Grid.of(levels)


@frozen
class Custom:
    """Levels given as a list, or made by a function of the number of steps. Give exactly one.

    Args:
        levels: At least two strictly decreasing levels, the last may be 0; one step fewer than levels.
        function: ``function(n)`` returns ``n + 1`` such levels.

    Raises:
        ParameterError: None or both are given, or `function` cannot be called.
        GridError: `levels` are no noise levels.
    """

    spans: ClassVar[bool] = False

    levels: Grid | None = field(default=None, converter=_grid)
    function: Callable[[int], Iterable[float]] | None = None

    def __attrs_post_init__(self) -> None:
        if (self.levels is None) == (self.function is None):
            raise ParameterError("custom: give either levels=[...] or function=f with f(n) -> n + 1 levels")
        if self.function is not None and not callable(self.function):
            raise ParameterError(f"custom: function={self.function!r} cannot be called; pass f(n) -> levels")

    def __call__(
        self,
        n: int,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return the levels. They are the user's own: the range and the process do not change them.

        Args:
            n: Number of steps, at least 1; with `levels`, exactly their number of steps.
            sigma_min: Not used.
            sigma_max: Not used.
            process: Not used.

        Raises:
            ParameterError: `n` is not the number of steps that `levels` have.
            GridError: `n` below 1, or `function` returned no noise levels or the wrong number of them.
        """
        steps = count(n, "custom")
        if self.levels is not None:
            if steps != self.levels.steps:
                raise ParameterError(
                    f"custom: {len(self.levels)} levels are {self.levels.steps} steps, not n={steps}; "
                    f"ask for n={self.levels.steps}"
                )
            return self.levels
        assert self.function is not None
        grid = Grid.of(self.function(steps))
        if grid.steps != steps:
            raise GridError(
                f"custom: the function returned {len(grid)} levels for n={steps}; return {steps + 1}"
            )
        return grid
