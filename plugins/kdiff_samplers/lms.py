"""Linear multistep (Adams-Bashforth) in sigma."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import lagrange_integrals
from kdiff_core.parameters import one_of


@frozen
class LMS(StepSampler):
    """Adams-Bashforth on ``dx/dsigma = (x - D) / sigma`` with exact weights on uneven steps.

    One evaluation a step; the first steps have lower order. Katherine Crowson's use of the classical
    method (Hairer, Norsett, Wanner 1993, "Solving Ordinary Differential Equations I", section III.5) in
    k-diffusion.

    Attributes:
        max_order: Number of slopes used, 1 to 4.
        end: What happens on a step into 0: ``"integrate"`` like any other step (k-diffusion), or
            ``"denoised"``: return D (ComfyUI).
    """

    max_order: int = field(default=4, validator=one_of(1, 2, 3, 4))
    end: str = field(default="integrate", validator=one_of("integrate", "denoised"))

    @property
    def order(self) -> int:
        """The number of slopes."""
        return self.max_order

    @property
    def memory(self) -> int:
        """The slopes but the newest."""
        return self.max_order - 1

    @property
    def reaches_zero(self) -> bool:
        """Whether the last step is integrated too."""
        return self.end == "integrate"

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Integrate the polynomial through the newest slopes."""
        slope = (x - ctx.denoise(x, sigma)) / sigma
        ctx.keep(slope=slope)
        slopes = [slope, *(point.slope for point in ctx.past)]
        nodes = [sigma, *(point.sigma for point in ctx.past)]
        for weight, old in zip(lagrange_integrals(nodes, sigma, sigma_next), slopes, strict=True):
            x = x + old * weight
        return x
