"""`Plan`: what a sampler does on a grid, as data.

A plan is a straight line of operations on registers, each written once: `Evaluate` the denoiser, draw
`Noise`, `Combine` states linearly. Register 0 is the initial state. All weights are numbers of the host,
computed before the first model call.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

from attrs import field, frozen

from .numerics import Number
from .path import Path


class Evaluate(NamedTuple):
    """Call the denoiser.

    `outs` are the registers of its outputs, named in `outputs`. `entry`: the state is the one that its
    step began with, or that state with noise added; otherwise it is a stage.
    """

    outs: tuple[int, ...]
    x: int
    sigma: Number
    outputs: tuple[str, ...] = ("denoised",)
    entry: bool = True


class Noise(NamedTuple):
    """Draw unit noise for an interval of levels."""

    out: int
    sigma_from: Number
    sigma_to: Number
    stream: str = "step"
    visit: int = 0


class Combine(NamedTuple):
    """Write ``sum(weight * register)`` to a register."""

    out: int
    terms: tuple[tuple[int, Number], ...]


Op = Evaluate | Noise | Combine


class PlanStep(NamedTuple):
    """One step: its levels, operations, and the registers of its first and its last state.

    `x` is the state of its first evaluation, at `sigma_hat`, and `denoised` that evaluation's output.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    sigma: Number
    sigma_hat: Number
    sigma_next: Number
    ops: tuple[Op, ...]
    start: int
    end: int
    x: int
    denoised: int | None


@frozen
class Plan:
    """What a sampler does on a grid.

    Attributes:
        sampler: The sampler, as it prints.
        path: The noise path.
        levels: The levels visited, one more than steps.
        steps: The steps.
    """

    sampler: str
    path: Path
    levels: tuple[Number, ...]
    steps: tuple[PlanStep, ...]
    _cache: dict[str, Any] = field(factory=dict, eq=False, repr=False, init=False)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle without what was worked out from the plan."""
        return Plan, (self.sampler, self.path, self.levels, self.steps)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A value that is computed once for each plan."""
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    @property
    def ops(self) -> tuple[Op, ...]:
        """All operations in order."""
        found: tuple[Op, ...] = self._once("ops", lambda: tuple(op for s in self.steps for op in s.ops))
        return found

    @property
    def ends(self) -> tuple[int, ...]:
        """Position behind the last operation of each step."""
        found: tuple[int, ...] = self._once("ends", lambda: tuple(accumulate(len(s.ops) for s in self.steps)))
        return found

    @property
    def result(self) -> int:
        """Register of the final state."""
        return self.steps[-1].end

    @property
    def evaluation_sigmas(self) -> tuple[Number, ...]:
        """Level of each model call, in order."""
        found: tuple[Number, ...] = self._once(
            "sigmas", lambda: tuple(op.sigma for op in self.ops if isinstance(op, Evaluate))
        )
        return found

    @property
    def evaluations(self) -> int:
        """Number of model calls."""
        return len(self.evaluation_sigmas)

    @property
    def noises(self) -> tuple[Noise, ...]:
        """All noise requests, in order."""
        found: tuple[Noise, ...] = self._once(
            "noises", lambda: tuple(op for op in self.ops if isinstance(op, Noise))
        )
        return found

    @property
    def stochastic(self) -> bool:
        """Whether any noise is drawn."""
        return bool(self.noises)

    @property
    def registers(self) -> int:
        """Number of registers."""
        count: int = self._once(
            "count", lambda: 1 + max((r for op in self.ops for r in written(op)), default=0)
        )
        return count

    @property
    def operands(self) -> int:
        """Most states that one update reads."""
        return max((len(op.terms) for op in self.ops if isinstance(op, Combine)), default=0)

    @property
    def buffers(self) -> int:
        """Most states that are alive at once, an update writing over an operand that ends with it."""
        ends = self.last_use()
        alive, most = {0}, 1
        for position, op in enumerate(self.ops):
            ending = {r for r in alive if ends.get(r, -1) <= position}
            alive = (
                (alive - ending) | set(written(op)) if isinstance(op, Combine) else alive | set(written(op))
            )
            most = max(most, len(alive))
            alive -= {r for r in alive if ends.get(r, -1) <= position}
        return most

    def last_use(self) -> dict[int, int]:
        """Position of the last operation that reads each register, or after which a step ends with it."""
        ends: dict[int, int] = {}
        for position, op in enumerate(self.ops):
            for register in (*written(op), *read(op)):
                ends[register] = position
        for step, end in zip(self.steps, self.ends, strict=True):
            ends[step.end] = max(ends.get(step.end, 0), end)  # it is looked at when the step is over
        return ends

    def increments(self) -> Plan:
        """The same plan with overlapping noise intervals drawn as increments of one Brownian path."""
        from .brownian import split_overlaps

        plan: Plan = self._once("increments", lambda: split_overlaps(self))
        return plan

    def table(self) -> str:
        """The plan for people: one line for each operation, under a line for each step."""
        from .plan_io import plan_table

        return plan_table(self)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data; `Plan.from_dict` reads it back exactly."""
        from .plan_io import plan_to_dict

        return plan_to_dict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """Read a plan that `to_dict` wrote; raises `PlanError` for anything else."""
        from .plan_io import plan_from_dict

        return plan_from_dict(data)


def written(op: Op) -> tuple[int, ...]:
    """Registers that an operation writes."""
    return op.outs if isinstance(op, Evaluate) else (op.out,)


def read(op: Op) -> tuple[int, ...]:
    """Registers that an operation reads."""
    if isinstance(op, Evaluate):
        return (op.x,)
    return tuple(r for r, _ in op.terms) if isinstance(op, Combine) else ()
