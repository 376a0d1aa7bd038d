"""Inversion: from data to the noise that a sampler makes them of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .engine import run
from .errors import CapabilityError, ConvergenceError, GridError, ParameterError
from .grid import Grid
from .lookup import get_sampler
from .path import FLOW_INNER_START, Path, as_path, path_grid
from .plans import Evaluate, Plan, read, written
from .result import Checkpoint
from .state import Leaves, check_state, flatten, rebuild

if TYPE_CHECKING:
    from .protocols import Denoiser, Process

# Differences of earlier iterates that an acceleration looks at.
HISTORY = 10


def invert(
    sampler: Any,
    denoiser: Denoiser,
    x: Any,
    sigmas: Any,
    *,
    exact: bool = True,
    cond: dict[str, Any] | None = None,
    process: Process | None = None,
    tolerance: float | None = None,
    max_iterations: int = 100,
) -> Any:
    """Return the state at the first level from which a deterministic sampler makes given data.

    With ``exact=True`` the run itself is inverted: ``sampler(denoiser, invert(...), sigmas)`` gives the data
    back, whatever the number of steps. Each step of a one-step sampler is solved for the state that it began
    with. The first steps of a multistep sampler lack a history that the inverse would have, so its run is
    solved as a whole; that may fail on grids so coarse that the run is far from the flow. A last step into 0
    is ``x = D(x, sigma)``, which has an inverse for data that the model can give; for data from elsewhere,
    leave the 0 out of `sigmas`, so that they are taken for a state at the lowest level.

    With ``exact=False`` the sampler's own step is taken on the rising levels, at the cost of one run: DDIM
    inversion (Song et al. 2020, arXiv:2010.02502, Section 4.3; Mokady et al. 2022, arXiv:2211.09794) and its
    like for every other solver. A 0 is left out of the levels: the data are taken for a state at the lowest
    level above it. Going there and back errs by the sampler's order.

    No gradient is recorded. A sample's result does not depend on the others in its batch.

    Args:
        sampler: A deterministic sampler with a plan, or its name.
        denoiser: The model.
        x: Data, ``(B, ...)`` or a nest, in units of the data.
        sigmas: Falling noise levels, those of the run that makes data.
        exact: Invert the run itself, or take the steps backwards.
        cond: Keyword arguments for the denoiser.
        process: The model's noise process; default its attribute ``process``, if it has one.
        tolerance: Error of each step (of the run, for a multistep sampler) at which `exact` is done: the
            root mean square over a sample, relative to one plus the sample's own. Default: 100 roundings
            of its dtype, 1000 for a run.
        max_iterations: Evaluations of each step, or runs, after which `exact` gives up.

    Returns:
        A state like `x`, at the level ``sigmas[0]``.

    Raises:
        CapabilityError: The sampler draws noise.
        TraceError: The sampler has no plan, as those with adaptive steps.
        ConvergenceError: `exact` did not come to the tolerance; the message says how close it came.
        ParameterError: `tolerance` or `max_iterations` is out of its range.
        GridError: Levels that cannot be run.
        StateError: Data that are no state.
    """
    sampler = get_sampler(sampler)
    path = as_path(getattr(denoiser, "path", "ve"))
    process = getattr(denoiser, "process", None) if process is None else process
    plan = deterministic_plan(sampler, sigmas, path, process)
    if tolerance is not None and not 0 < tolerance < 1:
        raise ParameterError(f"tolerance={tolerance!r}: give a number above 0 and below 1")
    if max_iterations < 1:
        raise ParameterError(f"max_iterations={max_iterations!r}: give a whole number of at least 1")
    leaves = check_state(x)
    memory = _has_memory(plan)
    if tolerance is None:
        tolerance = (1000 if memory else 100) * max(torch.finfo(leaf.dtype).eps for leaf in leaves)
    with torch.no_grad():
        if not exact:
            levels = rising(sigmas, path)
            deterministic_plan(sampler, levels, path, process)
            return run(sampler, denoiser, x, levels, cond=cond, process=process).x
        inverse = _Inverse(sampler, denoiser, x, plan, cond or {}, process, tolerance, max_iterations)
        return rebuild(x, inverse.run() if memory else inverse.steps())


def rising(sigmas: Any, path: Path) -> Grid:
    """Return the levels of a run from data to noise: those of the run to data backwards, without a 0.

    A flow path ends at 1, where log-SNR is infinite: the levels come near first, and the core takes the
    step of length 1e-4 that is left with Euler's method.

    Raises:
        GridError: Levels that cannot be run, or a single one above 0.
    """
    levels = [level for level in reversed(path_grid(sigmas, path)) if level > 0]
    if len(levels) < 2:
        raise GridError(f"noise levels: {levels} above 0; a run to noise goes between at least two")
    if path.alpha(levels[-1]) == 0 and levels[-2] < FLOW_INNER_START:
        levels.insert(-1, FLOW_INNER_START)
    return Grid.rising(levels)


def deterministic_plan(sampler: Any, sigmas: Any, path: Path, process: Process | None) -> Plan:
    """Return the plan of a sampler that draws no noise.

    Raises:
        CapabilityError: It draws noise.
    """
    plan: Plan = sampler.plan(sigmas, path, process)
    if plan.stochastic:
        raise CapabilityError(
            f"{sampler!r} draws noise, so that no state alone gives the data; take a deterministic sampler, "
            "or eta=0 where it has that parameter"
        )
    return plan


def _has_memory(plan: Plan) -> bool:
    """Whether a step reads more than the state that it begins with."""
    for step in plan.steps:
        known = {step.start}
        for op in step.ops:
            if not known.issuperset(read(op)):
                return True
            known.update(written(op))
    return False


class _Inverse:
    """Solves the steps of a plan, or a whole run of it, for the state at the beginning."""

    def __init__(
        self,
        sampler: Any,
        denoiser: Any,
        x: Any,
        plan: Plan,
        cond: dict[str, Any],
        process: Any,
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self.sampler, self.denoiser, self.plan, self.like = sampler, denoiser, plan, x
        self.cond, self.process = cond, process
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.leaves = check_state(x)

    def steps(self) -> Leaves:
        """Solve step by step, from the last to the first."""
        rows = self.pack(self.leaves)
        for index in reversed(range(len(self.plan.steps))):
            rows = self.solve_step(index, rows)
        return self.unpack(rows)

    def solve_step(self, index: int, wanted: Tensor) -> Tensor:
        """Solve one step for the rows that it begins with."""
        step = self.plan.steps[index]
        kept, ratio = step.sigma_next / step.sigma, self.plan.path.ratio(step.sigma)
        # Euler's slope of the end in the beginning, for data of unit variance: it only changes how fast the
        # iteration converges.
        scale = 1.0 / (kept + (1.0 - kept) / (1.0 + ratio * ratio))
        return self.solve(lambda rows: self.step(index, rows), wanted, wanted, lambda r: r * scale, index)

    def run(self) -> Leaves:
        """Solve the whole run; what it misses the data by is brought to noise by the rising run."""
        levels = rising(self.plan.levels, self.plan.path)

        def up(rows: Tensor) -> Tensor:
            return self.ran(rows, levels)

        rows = self.pack(self.leaves)
        return self.unpack(self.solve(lambda r: self.ran(r, self.plan.levels), rows, up(rows), up, None))

    def ran(self, rows: Tensor, levels: Any) -> Tensor:
        x = rebuild(self.like, self.unpack(rows))
        found = run(self.sampler, self.denoiser, x, levels, cond=self.cond, process=self.process)
        return self.pack(flatten(found.x))

    def step(self, index: int, rows: Tensor) -> Tensor:
        """The end of one step of the plan."""
        ops, position = self.plan.ops, self.plan.ends[index - 1] if index else 0
        calls = sum(isinstance(op, Evaluate) for op in ops[:position])
        state = {self.plan.steps[index].start: self.unpack(rows)}
        at = Checkpoint(self.plan, position, state, self.like, calls, index)
        found = run(self.sampler, self.denoiser, cond=self.cond, resume=at, stop=index + 1)
        return self.pack(flatten(found.x))

    def solve(
        self,
        end: Callable[[Tensor], Tensor],
        wanted: Tensor,
        rows: Tensor,
        undo: Callable[[Tensor], Tensor],
        index: int | None,
    ) -> Tensor:
        """Find the rows whose end is wanted, each for itself; `undo` is roughly the inverse of `end`."""
        rows, goal = rows.clone(), undo(wanted)
        size = [1.0 + _rms(row) for row in wanted]
        accelerators = [_Anderson() for _ in rows]
        for _ in range(self.max_iterations):
            reached = end(rows)
            errors = [_rms(row) / s for row, s in zip(reached - wanted, size, strict=True)]
            todo = [i for i, error in enumerate(errors) if not error <= self.tolerance]
            if not todo:
                return rows
            missed = undo(reached) - goal
            for i in todo:
                rows[i] = accelerators[i](rows[i], missed[i])
        raise self.refusal(errors, index)

    def refusal(self, errors: list[float], index: int | None) -> ConvergenceError:
        worst = max(range(len(errors)), key=lambda i: errors[i])
        step = None if index is None else self.plan.steps[index]
        where = "the run" if step is None else f"step {index} from {step.sigma:.6g} to {step.sigma_next:.6g}"
        if step is not None and step.sigma_next == 0:
            advice = (
                "the model does not give these data there: leave the 0 out of sigmas, so that they are taken "
                "for a state at the lowest level"
            )
        else:
            advice = "take more steps, a larger tolerance or max_iterations, or exact=False"
        return ConvergenceError(
            f"{where} of {self.plan.sampler} was not inverted in {self.max_iterations} iterations: sample "
            f"{worst} is off by {errors[worst]:.3g}, the tolerance is {self.tolerance:.3g}; {advice}"
        )

    def pack(self, leaves: Leaves) -> Tensor:
        """A row for each sample."""
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)

    def unpack(self, rows: Tensor) -> Leaves:
        parts = torch.split(rows, [leaf[0].numel() for leaf in self.leaves], 1)
        return [
            part.reshape(leaf.shape).to(leaf.dtype, copy=True)
            for part, leaf in zip(parts, self.leaves, strict=True)
        ]


class _Anderson:
    """Anderson's acceleration of ``x <- x - missed(x)`` for one sample.

    Walker and Ni 2011, "Anderson acceleration for fixed-point iterations": the combination of the last
    iterates whose residuals, were they linear, would be the smallest.
    """

    def __init__(self) -> None:
        self.points: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, missed: Tensor) -> Tensor:
        """Return the next iterate, from this one and what it misses."""
        self.points = [*self.points[-HISTORY:], (x.clone(), missed.clone())]
        pairs = self.points[max(0, len(self.points) - 1 - len(x)) :]
        if len(pairs) == 1:
            return x - missed
        newest_first = list(pairwise(pairs))[::-1]
        moves = torch.stack([b[0] - a[0] for a, b in newest_first], 1)
        changes = torch.stack([b[1] - a[1] for a, b in newest_first], 1)
        q, r = torch.linalg.qr(changes)
        diagonal = r.diagonal().abs()
        # Changes that are combinations of newer ones are noise, and so is all that is older.
        known = int((diagonal > 1e-10 * diagonal[0]).to(torch.int64).cumprod(0).sum())
        if not known:
            return x - missed
        part = torch.stack([(q[:, j] * missed).sum() for j in range(known)])
        weights = torch.linalg.solve_triangular(r[:known, :known], part[:, None], upper=True)[:, 0]
        for j in range(known):
            x, missed = x - weights[j] * moves[:, j], missed - weights[j] * changes[:, j]
        return x - missed


def _rms(row: Tensor) -> float:
    return float(row.double().square().mean().sqrt())
