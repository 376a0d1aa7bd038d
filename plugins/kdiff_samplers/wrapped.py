"""What a sampler that wraps another says of itself: what the other one says, but for where it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdiff_core import Grid, Path, Process, StepContext, StepSampler


class Wrapped(StepSampler):
    """The base of modifiers; a subclass has the attrs field `solver`, and overrides where it differs."""

    __slots__ = ()

    solver: StepSampler

    @property
    def order(self) -> int:
        """The solver's."""
        return self.solver.order

    @property
    def order_smooth(self) -> int:
        """The solver's."""
        return self.solver.order_smooth

    @property
    def memory(self) -> int:
        """The solver's."""
        return self.solver.memory

    @property
    def stochastic(self) -> bool:
        """The solver's."""
        return self.solver.stochastic

    @property
    def reaches_zero(self) -> bool:
        """The solver's."""
        return self.solver.reaches_zero

    @property
    def rises(self) -> bool:
        """The solver's."""
        return self.solver.rises

    @property
    def needs(self) -> frozenset[str]:
        """The solver's."""
        return self.solver.needs

    @property
    def linear(self) -> bool:
        """The solver's."""
        return self.solver.linear

    @property
    def path_invariant(self) -> bool:
        """The solver's."""
        return self.solver.path_invariant

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's."""
        return self.solver.known_failures

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The solver's levels."""
        return self.solver.prepare(grid, path, process)

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step."""
        return self.solver.step(ctx, x, sigma, sigma_next)
