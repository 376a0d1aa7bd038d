"""What a host does differently on flow models, as modifiers that its names stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import VE, Grid, Path, Process, StepContext, StepSampler, get_sampler
from kdiff_core.path import FLOW_INNER_START

from .wrapped import Wrapped

# What noise in the wrong proportion breaks, and what taking pure noise for a state at 0.9999 breaks.
AS_VE = dict.fromkeys(
    ("shift_equivariance", "exact_in_many_steps", "output_distribution"),
    "reads flow levels as VE levels, as ComfyUI does, so its noise is in the wrong proportion",
)
BELOW_ONE = dict.fromkeys(
    ("constant_denoiser_is_exact", "shift_equivariance"),
    "takes the state at level 1 for one at 0.9999, as ComfyUI does",
)


def start_below_one(grid: Grid, path: Path) -> Grid:
    """The grid, a flow path's start at 1 replaced by 0.9999, and levels between the two left out."""
    if path is VE or grid[0] < 1.0:
        return grid
    return Grid.of([FLOW_INNER_START, *(level for level in grid if level < FLOW_INNER_START)])


@frozen
class ReadAsVE(Wrapped):
    """A sampler that takes the levels of a flow path for levels of VE, as ComfyUI's dpmpp_2m and ddpm do.

    For matching a host (comfyanonymous 2023, ComfyUI). A deterministic solver keeps its order on a flow path,
    with a larger error; a stochastic one adds noise in the wrong proportion there.
    """

    solver: StepSampler = field(converter=get_sampler)

    path_invariant = False

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what noise in the wrong proportion breaks."""
        return {**self.solver.known_failures, **(AS_VE if self.stochastic else {})}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step with VE's alpha and log-SNR."""
        path, ctx.path = ctx.path, VE
        try:
            return self.solver.step(ctx, x, sigma, sigma_next)
        finally:
            ctx.path = path


@frozen
class StartBelowOne(Wrapped):
    """A sampler that starts a flow path at 0.9999 in place of 1, as ComfyUI's log-SNR samplers do.

    For matching a host (comfyanonymous 2023, ComfyUI); of the solver's order. Levels between the two, which
    only very long runs have, are left out.
    """

    solver: StepSampler = field(converter=get_sampler)

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What taking pure noise for a state at 0.9999 breaks."""
        return {**self.solver.known_failures, **BELOW_ONE}

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The grid with 0.9999 for 1."""
        return self.solver.prepare(start_below_one(grid, path), path, process)
