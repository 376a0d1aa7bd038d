"""What modifiers share: what a sampler that wraps another says of itself, and how it refuses one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from kdiff_core import Grid, Path, Process, StepContext, StepSampler
from kdiff_core.errors import ParameterError


def chain(sampler: Any) -> Iterator[Any]:
    """Yield a sampler, the one that it wraps, and so on."""
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "solver", None)


def has(sampler: Any, name: str) -> bool:
    """Whether a sampler has a parameter of its own."""
    return attrs.has(type(sampler)) and any(f.name == name and f.init for f in attrs.fields(type(sampler)))


def cannot(modifier: Any, solver: Any, why: str) -> ParameterError:
    """The error of a modifier that makes no sense for a solver, which `why` describes."""
    return ParameterError(f"{type(modifier).__name__} does not make sense for {solver!r}, which {why}")


def check_evaluates(instance: Any, attribute: Any, solver: Any) -> None:
    """Validate the solver of a modifier that evaluates the denoiser itself (an attrs validator).

    Raises:
        ParameterError: The solver needs other outputs than the denoised one.
    """
    if getattr(solver, "needs", None):
        raise cannot(instance, solver, "needs guidance's other outputs; wrap it the other way round")


class Wrapped(StepSampler):
    """The base of modifiers; a subclass has the attrs field `solver`, and overrides where it differs."""

    __slots__ = ()

    solver: StepSampler

    @property
    def described(self) -> StepSampler:
        """What it says of itself is what this sampler says: the solver."""
        return self.solver

    @property
    def order(self) -> int:
        """The solver's."""
        return self.described.order

    @property
    def order_smooth(self) -> int:
        """The solver's."""
        return self.described.order_smooth

    @property
    def memory(self) -> int:
        """The solver's."""
        return self.described.memory

    @property
    def stochastic(self) -> bool:
        """The solver's."""
        return self.described.stochastic

    @property
    def reaches_zero(self) -> bool:
        """The solver's."""
        return self.described.reaches_zero

    @property
    def rises(self) -> bool:
        """The solver's."""
        return self.described.rises

    @property
    def needs(self) -> frozenset[str]:
        """The solver's."""
        return self.described.needs

    @property
    def linear(self) -> bool:
        """The solver's."""
        return self.described.linear

    @property
    def path_invariant(self) -> bool:
        """The solver's."""
        return self.described.path_invariant

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's."""
        return self.described.known_failures

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The solver's levels."""
        return self.solver.prepare(grid, path, process)

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step."""
        return self.solver.step(ctx, x, sigma, sigma_next)
