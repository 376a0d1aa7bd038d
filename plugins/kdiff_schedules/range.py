"""What the schedules share: checks of their arguments, and the grid between two levels.

Units: noise levels are in units of the data; see `kdiff_core.protocols`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from kdiff_core.errors import GridError, ParameterError
from kdiff_core.grid import Grid

if TYPE_CHECKING:
    from kdiff_core.protocols import Process


def count(n: Any, name: str) -> int:
    """Return `n` as a number of steps.

    Raises:
        ParameterError: `n` is no whole number (an int; 20.0 is refused too).
        GridError: `n` is below 1.
    """
    try:
        steps = operator.index(n)
    except TypeError as error:
        raise ParameterError(
            f"{name}: n={n!r} is no number of steps; pass a whole number (an int), at least 1"
        ) from error
    if steps < 1 or isinstance(n, bool):
        raise GridError(f"{name}: n={n} steps; n must be a whole number of at least 1")
    return steps


def level(value: Any, argument: str, name: str) -> float:
    """Return a noise level as a float.

    Raises:
        ParameterError: `value` is no number.
        GridError: `value` is not finite or not above 0.
    """
    try:
        if isinstance(value, str | bytes):
            raise TypeError(type(value).__name__)
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name}: {argument}={value!r} is no number; pass one noise level") from error
    if not (math.isfinite(number) and number > 0):
        raise GridError(f"{name}: {argument}={number} must be finite and above 0")
    return number


@frozen
class RangeSchedule:
    """A schedule that goes down from `sigma_max` to `sigma_min` and then to 0.

    A family writes `ramp`, or `levels` where it needs more; arguments, ends and the final 0 are dealt with
    here, once. One that leaves out an end of the range says so with `meets_max` or `meets_min`.
    """

    spans: ClassVar[bool] = True
    meets_max: ClassVar[bool] = True
    meets_min: ClassVar[bool] = True

    def ramp(self, sigma_min: float, sigma_max: float) -> Callable[[float], float]:
        """Return the level as a function of ``u``, from `sigma_max` at 0 down to `sigma_min` at 1."""
        raise NotImplementedError

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels. Both ends are met bit for bit."""
        if n == 1:
            return [high, 0.0]
        at = self.ramp(low, high)
        return [high, *(at(i / (n - 1)) for i in range(1, n - 1)), low, 0.0]

    def default_range(self) -> tuple[float, float] | None:
        """Lowest and highest level where neither the caller nor a process gives them; None: no default."""
        return None

    def __call__(
        self,
        n: int,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return exactly `n` steps: `sigma_max`, ..., `sigma_min`, 0.

        A single step is ``[sigma_max, 0]``.

        Args:
            n: Number of steps, at least 1.
            sigma_min: Lowest level above zero. Default: the process's, else the schedule's own if it has one.
            sigma_max: Highest level, the first of the grid. Default: likewise.
            process: What the model was trained on.

        Raises:
            GridError: `n` below 1, levels that are no range, or a range too narrow for `n` distinct floats.
            ParameterError: The range is neither given nor known; `n` or a level is no number; the schedule
                needs a process, and there is none.
        """
        steps = count(n, type(self).__name__)
        low, high = self.resolve(sigma_min, sigma_max, process)
        return Grid.of(self.levels(steps, low, high, process))

    def resolve(
        self, sigma_min: float | None, sigma_max: float | None, process: Process | None
    ) -> tuple[float, float]:
        """Return the range ``(lowest, highest)``: as given, else the process's, else the schedule's own.

        Raises:
            GridError: An end is not finite or not above 0, or the lowest is not below the highest.
            ParameterError: An end is neither given nor known.
        """
        name = type(self).__name__
        own = (process.sigma_min, process.sigma_max) if process is not None else self.default_range()
        if own is None and (sigma_min is None or sigma_max is None):
            missing = [k for k, v in (("sigma_min", sigma_min), ("sigma_max", sigma_max)) if v is None]
            raise ParameterError(
                f"{name}: {' and '.join(missing)} not given, and no process to take them from; "
                "pass sigma_min= and sigma_max=, or process=get_process(...)"
            )
        low = level(own[0] if sigma_min is None and own else sigma_min, "sigma_min", name)
        high = level(own[1] if sigma_max is None and own else sigma_max, "sigma_max", name)
        if low >= high:
            raise GridError(f"{name}: sigma_min={low} must be below sigma_max={high}")
        return low, high
