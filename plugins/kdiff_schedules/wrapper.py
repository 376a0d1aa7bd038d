"""What schedules around another one share. They compose: ``schedule=`` takes a name or a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from kdiff_core.lookup import get_schedule

from .range import RangeSchedule

if TYPE_CHECKING:
    from kdiff_core.grid import Grid
    from kdiff_core.protocols import Process


def says(schedule: Any, attribute: str) -> bool:
    """Whether a schedule has an optional attribute that is true by default."""
    return bool(getattr(schedule, attribute, True))


@frozen
class Wrapper(RangeSchedule):
    """A schedule around another one.

    Args:
        schedule: The inner schedule, or its name.
    """

    schedule: Any = field(default="karras", converter=get_schedule, kw_only=True)

    # What it leaves out is what its schedule leaves out.
    @property
    def spans(self) -> bool:  # type: ignore[override]
        """Whether the inner schedule takes the range asked for."""
        return says(self.schedule, "spans")

    @property
    def meets_max(self) -> bool:  # type: ignore[override]
        """Whether the inner schedule starts at `sigma_max`."""
        return says(self.schedule, "meets_max")

    @property
    def meets_min(self) -> bool:  # type: ignore[override]
        """Whether the inner schedule goes down to `sigma_min`."""
        return says(self.schedule, "meets_min")

    def default_range(self) -> tuple[float, float] | None:
        """Return the inner schedule's own range."""
        own = getattr(self.schedule, "default_range", None)
        found: tuple[float, float] | None = own() if own is not None else None
        return found

    def inner(self, n: int, low: float, high: float, process: Process | None) -> Grid:
        """Return the inner schedule's grid over a range."""
        found: Grid = self.schedule(n, sigma_min=low, sigma_max=high, process=process)
        return found


def exact_ends(
    levels: Sequence[float], source: Sequence[float], low: tuple[float, float], high: tuple[float, float]
) -> list[float]:
    """Return mapped levels whose ends do not depend on rounding.

    Args:
        levels: The levels, mapped.
        source: The levels before.
        low: The lower end before and after.
        high: The upper end before and after.
    """
    known = dict([low, high])
    return [known.get(before, after) for before, after in zip(source, levels, strict=True)]
