"""Runs for a budget of model calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CapabilityError, KdiffError, ParameterError, TraceError
from .grid import Grid
from .lookup import get_modifier, get_sampler
from .path import Path, as_path
from .plans import Evaluate

if TYPE_CHECKING:
    from .plans import Plan
    from .protocols import PathName, Process

# Noise over signal at the ends of the grid that a budget is worked out on, unless the caller has one.
HIGH, LOW = 10.0, 0.01


class Spending(NamedTuple):
    """A sampler and the number of steps in which it spends a budget."""

    sampler: Any
    steps: int


def steps_for(
    sampler: Any,
    evaluations: int = 20,
    *,
    path: PathName | Path = "ve",
    process: Process | None = None,
    schedule: Callable[[int], Any] | None = None,
    zero: bool = True,
) -> int:
    """Return the largest number of steps that makes at most so many model calls.

    They are counted in the sampler's plans. Of most samplers the levels do not matter, only whether the last
    is 0; for one that makes levels of its own by where the caller's lie (restart), give the `schedule`.

    Args:
        sampler: A sampler with a plan, or its name.
        evaluations: Most model calls, at least 1. A guided model may run its network twice in each.
        path: Noise path, ``"ve"`` or ``"flow"``.
        process: The model's noise process, if known.
        schedule: Gives the levels of a number of steps. Default: even steps in log-SNR.
        zero: Whether the default levels end in 0.

    Raises:
        ParameterError: A single step makes more calls, `evaluations` is out of its range, or `schedule` and
            ``zero=False`` are both given.
        CapabilityError: The sampler has no plan, as its steps depend on the state; or its calls do not grow
            with the number of steps.
        UnknownNameError: No plugin offers the sampler.
    """
    return _Budget(sampler, evaluations, path, process, schedule, zero).steps()


def spend(
    sampler: Any,
    evaluations: int = 20,
    *,
    path: PathName | Path = "ve",
    process: Process | None = None,
    schedule: Callable[[int], Any] | None = None,
    zero: bool = True,
) -> Spending:
    """Return the sampler and the number of steps that make exactly so many model calls.

    Where no number of steps does, the fewest of the last steps that do it are made Euler's, by the modifier
    ``euler_at_end``: heun on a grid to 0 makes 1, 3, 5, ... calls, and 20 with two Euler steps behind 9 of
    its own.

    Args:
        sampler: A sampler with a plan, or its name.
        evaluations: Model calls, at least 1.
        path: Noise path, ``"ve"`` or ``"flow"``.
        process: The model's noise process, if known.
        schedule: Gives the levels of a number of steps. Default: even steps in log-SNR.
        zero: Whether the default levels end in 0.

    Returns:
        ``(sampler, steps)``.

    Raises:
        ParameterError: Not even that makes exactly so many calls; the message says what the sampler can
            spend near it. Or as `steps_for`.
        CapabilityError: As `steps_for`.
        UnknownNameError: No plugin offers the sampler.
    """
    budget = _Budget(sampler, evaluations, path, process, schedule, zero)
    most = budget.steps()
    if budget.calls(budget.sampler, most) == evaluations:
        return Spending(budget.sampler, most)
    ways = (
        (euler, steps) for euler in range(1, evaluations + 1) for steps in range(most + 1, evaluations + 1)
    )
    for euler, steps in ways:
        if euler > steps:
            continue
        try:
            modified = get_modifier("euler_at_end", budget.sampler, euler_at_end=euler)
        except KdiffError as error:
            raise budget.refusal(most, f"; its last steps cannot be Euler's: {error}") from error
        if budget.calls(modified, steps) == evaluations:
            return Spending(modified, steps)
    raise budget.refusal(most, ", Euler steps at its end or not")


class _Budget:
    """A number of model calls, and what a sampler makes of it."""

    def __init__(
        self, sampler: Any, evaluations: int, path: Any, process: Any, schedule: Any, zero: bool
    ) -> None:
        if type(evaluations) is not int or evaluations < 1:
            raise ParameterError(f"evaluations={evaluations!r}: give a whole number of at least 1")
        if schedule is not None and not zero:
            raise ParameterError("schedule and zero=False: the schedule decides where its levels end")
        self.sampler, self.evaluations, self.zero = get_sampler(sampler), evaluations, zero
        self.path, self.process, self.schedule = as_path(path), process, schedule

    def levels(self, steps: int) -> Grid:
        """The levels of a number of steps."""
        if self.schedule is not None:
            return Grid.of(self.schedule(steps))
        last = max(1, steps - self.zero)
        ratios = [HIGH * (LOW / HIGH) ** (i / last) for i in range(steps + (not self.zero))]
        return Grid.of([*map(self.path.from_ratio, ratios), *[0.0] * self.zero])

    def plan(self, sampler: Any, steps: int) -> Plan:
        """What a sampler does in a number of steps."""
        try:
            plan: Plan = sampler.plan(self.levels(steps), self.path, self.process)
        except TraceError as error:
            raise CapabilityError(
                f"{sampler!r} has no plan, so that its model calls are not known before a run: {error}"
            ) from error
        return plan

    def calls(self, sampler: Any, steps: int) -> int:
        """Model calls of a number of steps."""
        return self.plan(sampler, steps).evaluations

    def steps(self) -> int:
        """The most steps that the budget pays for; looked for from above, as calls need not grow evenly."""
        steps = self.evaluations
        while (over := self.calls(self.sampler, steps) - self.evaluations) > 0:
            if steps == 1:
                raise ParameterError(
                    f"evaluations={self.evaluations}: one step of {self.sampler!r} makes "
                    f"{over + self.evaluations}"
                )
            steps = max(1, steps - max(1, over // self.most_saved(steps)))
        while self.calls(self.sampler, steps + 1) <= self.evaluations:  # steps without a call
            steps += 1
            if steps > 4 * self.evaluations:
                raise CapabilityError(
                    f"{self.sampler!r} makes {self.calls(self.sampler, steps)} model calls in {steps} steps: "
                    "they do not grow with the number of steps"
                )
        return steps

    def most_saved(self, steps: int) -> int:
        """Calls that a run with one step less saves at most; twice that, for ends that differ."""
        plan = self.plan(self.sampler, steps)
        repeats = max(Counter((step.sigma, step.sigma_next) for step in plan.steps).values())
        return 2 * repeats * max(sum(isinstance(op, Evaluate) for op in step.ops) for step in plan.steps)

    def refusal(self, most: int, why: str) -> ParameterError:
        spent = [self.calls(self.sampler, steps) for steps in (most, most + 1)]
        return ParameterError(
            f"evaluations={self.evaluations}: {self.sampler!r} cannot spend exactly that{why}; it makes "
            f"{spent[0]} calls in {most} steps and {spent[1]} in {most + 1}"
        )
