"""A validated, immutable list of noise levels, in float64 on the host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from .errors import GridError


class Grid(Sequence[float]):
    """Strictly decreasing, finite noise levels: ``n + 1`` of them for ``n`` steps; the last may be 0.

    Build one with `Grid.of`, from any list, array or tensor. It behaves as a tuple of floats, is equal
    to and hashes like another grid of the same levels, and slices to a grid. `Grid.rising` makes the grid of
    a run from data to noise, for `kdiff_core.invert` and `kdiff_core.log_likelihood`.
    """

    __slots__ = ("_levels",)

    def __init__(self, levels: tuple[float, ...]) -> None:
        self._levels = levels

    @classmethod
    def of(cls, levels: Iterable[Any]) -> Grid:
        """Check noise levels and make a grid of them.

        Args:
            levels: At least two levels, strictly decreasing, finite, above 0 but for the last.

        Raises:
            GridError: With the offending position.
        """
        if isinstance(levels, Grid):
            return levels
        values = _floats(levels)
        if len(values) < 2:
            raise GridError(
                f"noise levels: {len(values)} given; a run of n steps needs n + 1 levels, so at least two"
            )
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise GridError(f"noise levels: sigmas[{i}] is {value}; every level must be finite")
            if value < 0 or (value == 0 and i < len(values) - 1):
                raise GridError(
                    f"noise levels: sigmas[{i}] is {value}; levels are above 0, only the last may be 0"
                )
            if i and value >= values[i - 1]:
                kind = "repeats" if value == values[i - 1] else "rises above"
                raise GridError(
                    f"noise levels: sigmas[{i}] = {value} {kind} sigmas[{i - 1}] = {values[i - 1]}; "
                    "levels must strictly decrease"
                )
        return cls(values)

    @classmethod
    def rising(cls, levels: Iterable[Any]) -> Grid:
        """Check noise levels that rise, for a run from data to noise, and make a grid of them.

        Args:
            levels: At least two levels, strictly increasing, finite, above 0.

        Raises:
            GridError: With the offending position, counted from the highest level.
        """
        values = _floats(levels)
        falling = cls.of(values[::-1])
        if falling[-1] == 0:
            raise GridError("noise levels: sigmas[0] is 0; a run to noise begins above 0")
        return cls(values)

    @property
    def steps(self) -> int:
        """Number of steps, one less than the number of levels."""
        return len(self._levels) - 1

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Grid: ...
    def __getitem__(self, index: int | slice) -> float | Grid:
        """Return a level, or a part of the grid as a grid (at least two levels)."""
        if isinstance(index, slice):
            part = self._levels[index]
            if len(part) < 2:
                raise GridError(
                    f"a slice of {len(part)} levels is no grid, which has at least two; slice tuple(grid)"
                )
            return Grid.rising(part) if part[0] < part[-1] else Grid.of(part)
        return self._levels[index]

    def __len__(self) -> int:
        """Return the number of levels."""
        return len(self._levels)

    def __iter__(self) -> Iterator[float]:
        """Iterate over the levels, in the order of the run."""
        return iter(self._levels)

    def __eq__(self, other: object) -> bool:
        """Compare the levels exactly."""
        return isinstance(other, Grid) and self._levels == other._levels

    def __hash__(self) -> int:
        """Hash the levels."""
        return hash(self._levels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the levels as a NumPy array of shape ``(n + 1,)``, float64 unless asked otherwise."""
        import numpy as np

        return np.array(self._levels, dtype=dtype or np.float64)

    def __repr__(self) -> str:
        """Show the ends and the number of steps."""
        inner = ", ".join(f"{v:.6g}" for v in self._levels)
        if len(self._levels) > 6:
            inner = ", ".join(f"{v:.6g}" for v in self._levels[:3]) + f", ..., {self._levels[-1]:.6g}"
        return f"Grid([{inner}], steps={self.steps})"


def _floats(levels: Iterable[Any]) -> tuple[float, ...]:
    """Floats of a list, array or tensor of one dimension; a tensor is read in one transfer."""
    try:
        plain = levels.tolist() if hasattr(levels, "tolist") else list(levels)
        return tuple(float(v) for v in plain)
    except (TypeError, ValueError) as error:
        raise GridError(
            f"noise levels: {type(levels).__name__} is no list of numbers; give one dimension of levels"
        ) from error
