"""What a host does differently on flow models, as modifiers that its names stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import VE, Grid, Path, Process, StepContext, StepSampler, get_sampler

START = 1.0 - 1e-4


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

    @property
    def path_invariant(self) -> bool:
        """The solver's."""
        return self.solver.path_invariant

    @property
    def needs(self) -> frozenset[str]:
        """The solver's."""
        return self.solver.needs

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step."""
        return self.solver.step(ctx, x, sigma, sigma_next)


@frozen
class ReadAsVE(_Wrapped):
    """A sampler that takes the levels of a flow path for levels of VE, as ComfyUI's dpmpp_2m and ddpm do.

    For matching a host (comfyanonymous 2023, ComfyUI). A deterministic solver keeps its order on a flow path,
    with a larger error; a stochastic one adds noise in the wrong proportion there.
    """

    path_invariant = False

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what noise in the wrong proportion breaks."""
        if not self.stochastic:
            return self.solver.known_failures
        why = "reads flow levels as VE levels, as ComfyUI does, so its noise is in the wrong proportion"
        laws = ("shift_equivariance", "exact_in_many_steps", "output_distribution")
        return {**self.solver.known_failures, **dict.fromkeys(laws, why)}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step with VE's alpha and log-SNR."""
        path, ctx.path = ctx.path, VE
        try:
            return self.solver.step(ctx, x, sigma, sigma_next)
        finally:
            ctx.path = path


@frozen
class StartBelowOne(_Wrapped):
    """A sampler that starts a flow path at 0.9999 in place of 1, as ComfyUI's log-SNR samplers do.

    For matching a host (comfyanonymous 2023, ComfyUI); of the solver's order. Levels between the two, which
    only very long runs have, are left out.
    """

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What taking pure noise for a state at 0.9999 breaks."""
        why = "takes the state at level 1 for one at 0.9999, as ComfyUI does"
        laws = ("constant_denoiser_is_exact", "shift_equivariance")
        return {**self.solver.known_failures, **dict.fromkeys(laws, why)}

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The grid with 0.9999 for 1."""
        levels: Sequence[float] = grid
        if path is not VE and grid[0] == 1.0:
            levels = [START, *(level for level in grid if level < START)]
        return self.solver.prepare(Grid.of(levels), path, process)
