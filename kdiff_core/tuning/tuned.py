"""What tuning leaves: `Tuned`, a small JSON file; and the schedule and the sampler that are read from one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from attrs import evolve, field, frozen

from ..errors import CapabilityError, GridError, ParameterError
from ..files import write_whole
from ..grid import Grid
from ..path import Path, as_path
from ..plans import Evaluate, Noise, Op, Plan, read, written
from ..sampler import StepSampler

if TYPE_CHECKING:
    from ..context import StepContext
    from ..protocols import PathName, Process

VERSION = 1
KINDS = ("schedule", "sampler")
# Levels that went through float32, as hosts have them, are still the levels of the file.
SAME = 1e-6
File = str | PathLike[str]


@frozen
class TunedSchedule:
    """The levels that were tuned: one grid, whatever range it is asked for.

    Attributes:
        grid: The levels.
        path: The noise path that they were tuned on.
        steps: The number of steps.
    """

    spans: ClassVar[bool] = False

    grid: Grid
    path: str

    @property
    def steps(self) -> int:
        """The only number of steps there is."""
        return self.grid.steps

    def __call__(
        self,
        n: int | None = None,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return the levels.

        Args:
            n: Number of steps; that of the levels, or None.
            sigma_min: Not used.
            sigma_max: Not used.
            process: What the model was trained on; must be on the schedule's path.

        Raises:
            ParameterError: Another number of steps, or another path.
        """
        if n is not None and n != self.steps:
            raise ParameterError(
                f"this schedule was tuned for {self.steps} steps, not for n={n}; ask for those"
            )
        if process is not None and process.path != self.path:
            raise ParameterError(
                f"this schedule was tuned on the {self.path} path; the model's process is on {process.path}"
            )
        return self.grid


@frozen
class TunedSampler(StepSampler):
    """A tuned plan, run as it is. It is of order 1: exact for a constant denoiser, unless it was freed.

    Non-stationary solvers: Shaul et al. 2024, arXiv:2403.01329.

    Attributes:
        tuned: The plan.
    """

    tuned: Plan

    order, memory = 1, 1

    def levels(self, sigmas: Any, path: PathName | Path = "ve", process: Process | None = None) -> Grid:
        """Return the plan's own levels, if those asked for are the same.

        Raises:
            GridError: They differ by more than one part in a million.
            CapabilityError: The plan is of another path.
        """
        own, asked = Grid(tuple(self.tuned.levels)), Grid.of(sigmas)
        if as_path(path) is not self.tuned.path:
            raise CapabilityError(
                f"{self!r} was tuned on the {self.tuned.path.name} path; this run is on {as_path(path).name}"
            )
        if len(own) != len(asked) or not all(map(_close, own, asked)):
            raise GridError(
                f"{self!r} has weights for its own levels alone: {own!r}, not {asked!r}; "
                "give those levels, which get_schedule reads from the same file"
            )
        return own

    def plan(self, sigmas: Any, path: PathName | Path = "ve", process: Process | None = None) -> Plan:
        """Return the plan, if the levels and the path are its own; see `levels`."""
        self.levels(sigmas, path, process)
        return self.tuned

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Refuse: the weights are those of a whole run.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(f"{self!r} is a plan, which is run as a whole; nothing can wrap its steps")

    def __repr__(self) -> str:
        """Show the plan's name, by which runs are resumed."""
        return self.tuned.sampler


def _close(own: float, asked: float) -> bool:
    return abs(own - asked) <= SAME * own


@frozen
class Tuned:
    """What a tuning came to: levels, a plan if weights were tuned, and how it came about.

    Attributes:
        path: ``"ve"`` or ``"flow"``.
        grid: The levels.
        plan: The tuned plan; None where the levels alone were tuned.
        provenance: JSON-able: sampler, denoiser, teacher, seeds, numbers of starts, errors before and after
            on each split, versions, date.
    """

    path: str
    grid: Grid
    plan: Plan | None = None
    provenance: Mapping[str, Any] = field(factory=dict, hash=False)

    @property
    def kind(self) -> Literal["schedule", "sampler"]:
        """What the file is for: a sampler's has the schedule in it."""
        return "schedule" if self.plan is None else "sampler"

    @property
    def schedule(self) -> TunedSchedule:
        """The levels, as a schedule."""
        return TunedSchedule(self.grid, self.path)

    @property
    def sampler(self) -> TunedSampler:
        """The plan, as a sampler.

        Raises:
            ParameterError: The levels alone were tuned.
        """
        if self.plan is None:
            raise ParameterError(
                f"only the levels were tuned, for {self.provenance.get('sampler')}: run that on them; "
                "`kdiff tune weights` makes a sampler"
            )
        return TunedSampler(self.plan)

    def to_dict(self) -> dict[str, Any]:
        """The JSON-able data of the file; floats are written so that they read back exactly."""
        return {
            "kdiff_tuned": VERSION,
            "kind": self.kind,
            "path": self.path,
            "levels": list(self.grid),
            "plan": None if self.plan is None else self.plan.to_dict(),
            "provenance": dict(self.provenance),
        }

    def save(self, file: File) -> None:
        """Write the file, whole or not at all.

        Raises:
            ParameterError: Its name does not end in ``.json``, by which it is known.
            OSError: It cannot be written.
        """
        if FilePath(file).suffix.lower() != ".json":
            raise ParameterError(f"{file}: the name of a tuned file must end in .json")
        write_whole(FilePath(file), (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())

    @classmethod
    def read(cls, file: File) -> Tuned:
        """Read what `save` wrote. It is data: nothing in it is run.

        Raises:
            ParameterError: There is no such file, or it is no tuned file that this version can read.
        """
        try:
            data = json.loads(FilePath(file).expanduser().read_bytes())
        except OSError as error:
            raise ParameterError(f"{file}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"{file}: is no JSON: {error}") from error
        found = data.get("kdiff_tuned") if isinstance(data, dict) else None
        if found is None:
            raise ParameterError(f"{file}: is no tuned file; `kdiff tune` and Tuned.save write such files")
        if found != VERSION:
            raise ParameterError(f"{file}: is of version {found!r}; this kdiff reads version {VERSION}")
        try:
            return _of(data)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError) as error:
            raise ParameterError(f"{file}: is a tuned file that is damaged: {error}") from error


def tuned_schedule(file: File) -> TunedSchedule:
    """Return the schedule in a tuned file, of either kind; see `Tuned.read`."""
    return Tuned.read(file).schedule


def tuned_sampler(file: File) -> TunedSampler:
    """Return the sampler in a tuned file; see `Tuned.read` and `Tuned.sampler`."""
    return Tuned.read(file).sampler


def named(plan: Plan, of: str) -> Plan:
    """Return a plan whose name says what it was tuned from, and tells it from others by a hash."""
    plain = json.dumps({**evolve(plan, sampler="").to_dict()})
    short = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return evolve(plan, sampler=f"Tuned({of}, {len(plan.steps)} steps, {short})")


def _of(data: Mapping[str, Any]) -> Tuned:
    """Check what a file has, and make a `Tuned` of it."""
    grid, path = Grid.of(data["levels"]), as_path(data["path"]).name
    provenance = data["provenance"]
    if data["kind"] not in KINDS or not isinstance(provenance, dict):
        raise ValueError(f"its kind is {data['kind']!r:.40}, its provenance {type(provenance).__name__}")
    if (data["kind"] == "sampler") != (data["plan"] is not None):
        raise ValueError(f"it is a {data['kind']}, but its plan is {data['plan']!r:.20}")
    if data["plan"] is None:
        return Tuned(path, grid, None, provenance)
    plan = Plan.from_dict(data["plan"])
    if tuple(plan.levels) != tuple(grid) or plan.path.name != path or len(plan.steps) != grid.steps:
        raise ValueError("its plan is for other levels or another path")
    _check(plan)
    return Tuned(path, grid, plan, provenance)


def _check(plan: Plan) -> None:
    """Refuse a plan that reads what was not written, or has a weight or a level that is no finite number."""
    known: set[int] = {0}
    for number, step in enumerate(plan.steps):
        levels = (step.sigma, step.sigma_hat, step.sigma_next)
        if step.index != number or step.start not in known or not _finite(levels):
            _damaged(f"step {number}")
        for op in step.ops:
            if (
                not known.issuperset(read(op))
                or not known.isdisjoint(written(op))
                or not _finite(_numbers(op))
            ):
                _damaged(f"step {number}: {op}")
            known.update(written(op))
        if step.end not in known or step.x not in known:
            _damaged(f"step {number}")


def _numbers(op: Op) -> Iterator[Any]:
    if isinstance(op, Evaluate):
        yield op.sigma
    elif isinstance(op, Noise):
        yield from (op.sigma_from, op.sigma_to)
    else:
        yield from (weight for _, weight in op.terms)


def _finite(numbers: Iterator[Any] | Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)


def _damaged(where: str) -> NoReturn:
    raise ValueError(f"its plan cannot be run: {where:.120}")
