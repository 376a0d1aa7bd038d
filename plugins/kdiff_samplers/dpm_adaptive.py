"""DPM-Solver-12 and -23 with adaptive steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import AdaptiveSampler, Grid, Path, Process, StepContext
from kdiff_core.numerics import Number, elementwise
from kdiff_core.parameters import not_negative, one_of

from .dpm_solver import DPMSolverS


@frozen
class DPMAdaptive(AdaptiveSampler):
    """DPM-Solver-12 or -23 with adaptive steps: of order 2 or 3, the error told by a step of order 1 or 2.

    Lu et al. 2022, arXiv:2206.00927, Appendix C; steps are chosen as in Jolicoeur-Martineau et al. 2021,
    arXiv:2105.14080; the numbers are k-diffusion's. Its default ``per="batch"`` is k-diffusion's too:
    ``per="sample"`` is better, since a sample then does not depend on its neighbours in the batch.

    Attributes:
        order: 2 or 3: evaluations of a try.
        eta: Share of fresh noise, as of an ancestral step: 0 is deterministic.
        s_noise: Factor of the fresh noise.
        end: Where a grid ends in 0: ``"level"``, stop at its last level above 0 (k-diffusion), or
            ``"denoised"``: go on to 0 with one evaluation more.
    """

    order: int = field(default=3, validator=one_of(2, 3))
    eta: float = field(default=0.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)
    end: str = field(default="level", validator=one_of("level", "denoised"))
    per: str = field(default="batch", validator=one_of("sample", "batch"))

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What stopping above 0 breaks, and what a jump of the controller with noise does."""
        found = dict(super().known_failures)
        found["eta_zero_is_deterministic"] = "with noise the controller takes 1.5 for the order of the error"
        if self.end == "level":
            why = "stops at the last level above 0, as k-diffusion's does; end='denoised' goes on to 0"
            found |= dict.fromkeys(("reaches_zero", "constant_denoiser_is_exact"), why)
        return found

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    @property
    def error_order(self) -> float:
        """The higher order, or 1.5 with noise."""
        return 1.5 if self.eta else float(self.order)

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The first level and the last; 0 is left out where the end is a level."""
        levels = super().prepare(grid, path, process)
        return levels[:2] if self.end == "level" else levels

    def attempt(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> tuple[Any, Any]:
        """Solvers of two orders on one first evaluation, to the level that fresh noise leaves over."""
        down = ctx.path.ratio_down(sigma, sigma_next, self.eta)
        # Not below the run's last level.
        down = elementwise(max)(down, ctx.grid[-1] or ctx.grid[-2])
        *_, lower, higher = DPMSolverS(self.order).results(ctx, x, sigma, down)
        if not self.eta:
            return higher, lower
        noise = ctx.noise(sigma, sigma_next)
        x_next = ctx.renoise(higher, down, sigma_next, noise, self.s_noise)
        return x_next, ctx.renoise(lower, down, sigma_next, noise, self.s_noise)
