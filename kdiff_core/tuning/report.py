"""What a tuning hands back: the result with its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .. import __version__
from ..grid import Grid
from .lessons import SPLITS, Lessons
from .tuned import Tuned, TunedSampler

if TYPE_CHECKING:
    from ..plans import Plan


class Untuned(NamedTuple):
    """A grid as a schedule gives it: the schedule's name, the levels, the error on the training starts."""

    name: str
    grid: Grid
    error: float


def report(
    what: str,
    solver: Any,
    lessons: Lessons,
    untuned: Untuned,
    grid: Grid,
    settings: Mapping[str, Any],
    plan: Plan | None = None,
) -> Tuned:
    """Measure what a tuning found on all splits, the held-out one for the first time, and write it all down.

    Args:
        what: ``"grid"``, ``"weights"`` or ``"steps"``.
        solver: The sampler.
        lessons: What it was tuned on.
        untuned: What it is compared with.
        grid: The levels that were found.
        settings: How it was tuned.
        plan: The plan that was found, if its weights were tuned.
    """
    tuned: Any = solver if plan is None else TunedSampler(plan)
    pairs = {"untuned": (solver, untuned.grid), "tuned": (tuned, grid)}
    provenance = {
        "tuned": what,
        "sampler": repr(solver),
        "steps": grid.steps,
        "evaluations": _evaluations(solver, lessons, grid),
        "untuned_schedule": untuned.name,
        "untuned_levels": list(untuned.grid),
        "kept_untuned": plan is None and grid == untuned.grid,
        "settings": dict(settings),
        **lessons.facts,
        "measure": "median over the starts of the root mean square difference from the teacher's result",
        "errors": {
            name: {split: lessons.error(*pair, split) for split in SPLITS} for name, pair in pairs.items()
        },
        "kdiff": __version__,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Tuned(lessons.path, grid, plan, provenance)


def _evaluations(solver: Any, lessons: Lessons, grid: Grid) -> int:
    """Model calls of a run."""
    x = lessons.validation
    with torch.no_grad():
        cond = next(x.chunks(1)).cond
        run = solver.run(lessons.denoiser, x.x[:1], grid, cond=cond, process=lessons.process)
    found: int = run.evaluations
    return found
