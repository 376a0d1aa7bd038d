"""What a host does differently on flow models, as modifiers that its names stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import VE, Grid, Path, Process, StepContext, StepSampler, get_sampler


@frozen
class _Wrapped(StepSampler):
    """A sampler that differs from another in one respect."""

    solver: StepSampler = field(converter=get_sampler)

    @property
    def order(self) -> int:
        """The solver's."""
        return self.solver.order

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

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step."""
        return self.solver.step(ctx, x, sigma, sigma_next)


@frozen
class ReadAsVE(_Wrapped):
    """A sampler that takes the levels of a flow path for levels of VE, as ComfyUI's dpmpp_2m and ddpm do.

    On a flow path its order is lower (dpmpp_2m) or its distribution wrong (ddpm). For matching a host.
    """

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step with VE's alpha and log-SNR."""
        path, ctx.path = ctx.path, VE
        try:
            return self.solver.step(ctx, x, sigma, sigma_next)
        finally:
            ctx.path = path


@frozen
class StartBelowOne(_Wrapped):
    """A sampler that starts a flow path at 0.9999 in place of 1, as ComfyUI's log-SNR samplers do."""

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The grid with 0.9999 for 1."""
        levels = [1.0 - 1e-4 if level == 1.0 and path is not VE else level for level in grid]
        return self.solver.prepare(Grid.of(levels), path, process)
