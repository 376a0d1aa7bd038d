"""Tuning the weights of a plan."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import CapabilityError
from ..grid import Grid
from ..path import as_path
from ..plans import Plan
from ..setup import at_least_one
from ..tracing import trace
from .fitting import fit
from .grids import baselines, best_grid, tunable
from .lessons import Lessons
from .report import report
from .tuned import Tuned, TunedSampler, named
from .weights import free_weights, level_shares, levels_of, shifted, widened


def tune_weights(
    sampler: Any,
    lessons: Lessons,
    steps: int = 6,
    *,
    levels: bool = True,
    keep: bool = True,
    history: int | None = None,
    schedule: Any = None,
    iterations: int = 120,
    patience: int = 4,
    progress: bool = False,
) -> Tuned:
    """Tune the weights of a sampler's plan: a non-stationary solver (Shaul et al. 2024, arXiv:2403.01329).

    Each state is its step's first state and the model's outputs so far, with a weight for each. It begins
    with the sampler's own weights; of all it goes through, the plan that is best on the validation split is
    returned, which may be the untuned one.

    Args:
        sampler: A deterministic sampler, or its name.
        lessons: From `Lessons.of`.
        steps: Number of steps.
        levels: Whether to tune the grid as well: first alone, then together with the weights.
        keep: Whether to keep the condition of order 1: a run stays exact for a constant denoiser.
        history: How many of the newest outputs a state may read beyond what the sampler reads. Default: all.
        schedule: What to begin with and to be compared with. Default: the best of the catalogue.
        iterations: Most iterations; of the grid alone half as many.
        patience: Looks at the validation split, one in five iterations, without progress before it stops.
        progress: Show it.

    Raises:
        ParameterError: An argument is out of its range.
        CapabilityError: The sampler draws noise or places levels itself; or the denoiser cuts the gradient.
        TraceError: The sampler has no plan.
    """
    solver = tunable(sampler, steps, iterations, patience)
    if history is not None:
        at_least_one("history", history, "outputs")
    path = as_path(lessons.path)
    untuned = baselines(solver, lessons, steps, schedule)
    grid = first = untuned[0].grid
    if tuple(solver.levels(first, path, lessons.process)) != tuple(first):
        raise CapabilityError(f"{solver!r} places levels of its own; its weights cannot be tuned")
    if levels:
        rough = (iterations + 1) // 2  # the weights, with which the levels are tuned again, matter more
        grid = best_grid(solver, lessons, untuned, "gradient", rough, patience, progress)
    plans: list[Plan] = [solver.plan(g, path, lessons.process) for g in (first, grid)]
    search = _Search(solver, lessons, grid, levels, keep, history)
    if search.parameters:
        found = fit(
            search.plan,
            search.parameters,
            lessons,
            iterations=iterations,
            patience=patience,
            label="weights",
            progress=progress,
        )
        plans.append(found.plan)
    best = min(plans, key=lambda plan: lessons.error(TunedSampler(plan), plan.levels, "validation"))
    settings = {
        "levels": levels, "keep": keep, "history": history, "iterations": iterations, "patience": patience,
        "parameters": sum(p.numel() for p in search.parameters), "untuned_plan": best == plans[0],
    }  # fmt: skip
    return report(
        "weights", solver, lessons, untuned[0], Grid(tuple(best.levels)), settings, named(best, repr(solver))
    )


class _Search:
    """The parameters of a plan: the shares of its levels, and the changes of its weights."""

    def __init__(
        self, solver: Any, lessons: Lessons, grid: Grid, levels: bool, keep: bool, history: int | None
    ) -> None:
        self.solver, self.lessons, self.grid, self.keep, self.history = solver, lessons, grid, keep, history
        self.path = as_path(lessons.path)
        shares = torch.tensor(level_shares(grid, lessons.sigma_min), dtype=torch.float64)
        self.logits = shares.log().requires_grad_() if levels and grid.steps > 1 else None
        count = free_weights(widened(solver.plan(grid, self.path, lessons.process), history), keep)
        self.deltas = torch.zeros(count, dtype=torch.float64, requires_grad=True)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What is to be fitted; nothing where one step leaves nothing free."""
        if self.grid.steps == 1 and self.keep and self.deltas.numel() < 2:
            return []
        return [self.deltas] if self.logits is None else [self.logits, self.deltas]

    def plan(self) -> Plan:
        """The plan of the parameters as they are, its numbers with gradients."""
        lessons = self.lessons
        if self.logits is None:
            plan = self.solver.plan(self.grid, self.path, lessons.process)
        else:
            levels = levels_of(self.logits, lessons.sigma_max, lessons.sigma_min)
            plan = trace(self.solver, levels, self.path, lessons.process)
        return shifted(widened(plan, self.history), self.deltas, self.keep)
