"""Schedules made of others: stretched to an end, a part for image to image, two in a row, another range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from kdiff_core.errors import GridError, ParameterError
from kdiff_core.lookup import get_schedule
from kdiff_core.parameters import below_one, fraction, positive

from .range import RangeSchedule
from .surgery import rescale
from .wrapper import Wrapper, says

if TYPE_CHECKING:
    from kdiff_core.protocols import Process


@frozen
class Stretched(Wrapper):
    """A schedule stretched from its first level on so that the last above 0 is `terminal`.

    LTX-Video's ``shift_terminal``: HaCohen et al. 2024, arXiv:2501.00103. One step has nothing to stretch.

    Args:
        schedule: The inner schedule, or its name.
        terminal: The last level above 0.
    """

    meets_min: ClassVar[bool] = False
    known_failures: ClassVar[dict[str, str]] = dict.fromkeys(
        ("spans_the_range_given", "takes_its_range_from_a_process"),
        "its last level above 0 is terminal, wherever sigma_min is",
    )
    schedule: Any = field(default="flow_linspace", converter=get_schedule, kw_only=True)
    terminal: float = field(default=0.1, converter=float, validator=positive)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels.

        Raises:
            GridError: `terminal` is not below the first level.
        """
        inner = list(self.inner(n, low, high, process))
        above = [level for level in inner if level > 0]
        end = self.terminal
        if end >= above[0]:
            raise GridError(f"Stretched: terminal={end} must be below the first level, {above[0]}")
        if len(above) == 1:
            return inner
        scale = (above[0] - end) / (above[0] - above[-1])
        return [*(above[0] - (above[0] - v) * scale for v in above[:-1]), end, *inner[len(above) :]]


@frozen
class Strength(Wrapper):
    """The last `n` of ``int(n / strength)`` steps: image to image, with exactly `n` steps, as ComfyUI does.

    diffusers and A1111 make `n` steps and keep a part of them: ``diffusers:strength``, ``a1111:denoise``.

    Args:
        schedule: The inner schedule, or its name.
        strength: How much of the way is gone, above 0 and at most 1.
    """

    strength: float = field(default=1.0, converter=float, validator=fraction)

    @property
    def meets_max(self) -> bool:  # type: ignore[override]
        """Whether nothing is left out."""
        return self.strength == 1 and says(self.schedule, "meets_max")

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        return self.inner(int(n / self.strength), low, high, process)[-n - 1 :]


@frozen
class KeptOfDiffusers(Strength):
    """The last ``int(n strength)`` of `n` steps: diffusers' image to image, with fewer steps than `n`.

    Args:
        schedule: The inner schedule, or its name.
        strength: How much of the way is gone, above 0 and at most 1.
    """

    def kept(self, n: int) -> int:
        """Return the number of steps that are left of `n`."""
        return min(int(n * self.strength), n)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the levels that are left.

        Raises:
            GridError: No step is left.
        """
        kept = self.kept(n)
        if kept < 1:
            raise GridError(
                f"{type(self).__name__}: strength={self.strength} leaves no step of n={n}; "
                f"ask for n={math.ceil(1 / self.strength)} or more"
            )
        return self.inner(n, low, high, process)[-kept - 1 :]


@frozen
class KeptOfA1111(KeptOfDiffusers):
    """The last ``int(min(strength, 0.999) n) + 1`` of `n` steps: A1111's image to image.

    Args:
        schedule: The inner schedule, or its name.
        strength: How much of the way is gone, above 0 and at most 1.
    """

    def kept(self, n: int) -> int:
        """Return the number of steps that are left of `n`."""
        return min(int(min(self.strength, 0.999) * n) + 1, n)


@frozen
class StepsOf(Wrapper):
    """Steps `start` to `end` of `n`: ComfyUI's ``start_at_step`` and ``end_at_step``.

    Args:
        schedule: The inner schedule, or its name.
        start: First step, counted from 0.
        end: The step before which it ends; None is the last.
    """

    meets_max: ClassVar[bool] = False
    meets_min: ClassVar[bool] = False
    start: int = 0
    end: int | None = None

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the levels between.

        Raises:
            GridError: There is no step between.
        """
        end = n if self.end is None else min(self.end, n)
        if not 0 <= self.start < end:
            raise GridError(f"StepsOf: there is no step from {self.start} to {end} of n={n}")
        return self.inner(n, low, high, process)[self.start : end + 1]


@frozen
class Joined(RangeSchedule):
    """Two schedules in a row: `first` from `sigma_max` to `at`, `second` from there to `sigma_min` and 0.

    Up to two steps are `first`'s alone.

    Args:
        first: Schedule of the high levels, or its name.
        second: Schedule of the low levels, or its name.
        at: Level where they meet; None is the geometric mean of the range.
        share: Part of the steps that `first` gets, between 0 and 1; each gets one at least.
    """

    first: Any = field(default="exponential", converter=get_schedule)
    second: Any = field(default="karras", converter=get_schedule)
    at: float | None = None
    share: float = field(default=0.5, converter=float, validator=below_one)

    def __attrs_post_init__(self) -> None:
        for part in (self.first, self.second):
            if not all(says(part, attribute) for attribute in ("spans", "meets_max", "meets_min")):
                raise ParameterError(f"Joined: {part} does not go from one end of its range to the other")

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels.

        Raises:
            GridError: The two do not meet within the range.
        """
        if n <= 2:
            return list(self.first(n, sigma_min=low, sigma_max=high, process=process))
        middle = math.sqrt(low * high) if self.at is None else float(self.at)
        if not low < middle < high:
            raise GridError(f"Joined: at={middle} must be between sigma_min={low} and sigma_max={high}")
        steps = min(max(round(n * self.share), 1), n - 2)
        upper = self.first(steps + 1, sigma_min=middle, sigma_max=high, process=process)
        lower = self.second(n - steps, sigma_min=low, sigma_max=middle, process=process)
        return [*list(upper)[: steps + 1], *list(lower)[1:]]


@frozen
class Rescaled(Wrapper):
    """A schedule's levels brought to the range asked for, by a line in their logarithm.

    So that a table (``rescaled`` of "ays") suits another model.

    Args:
        schedule: The inner schedule, or its name.
    """

    spans: ClassVar[bool] = True
    meets_max: ClassVar[bool] = True
    meets_min: ClassVar[bool] = True
    schedule: Any = field(default="ays", converter=get_schedule, kw_only=True)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        inner = self.inner(n, low, high, process)
        return list(rescale(inner, low, high)) if n > 1 else [high, 0.0]
