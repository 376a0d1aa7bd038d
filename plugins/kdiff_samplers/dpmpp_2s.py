"""DPM-Solver++ of order 2, single-step."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.parameters import one_of


@frozen
class DPMpp2S(StepSampler):
    """DPM-Solver++(2S): order 2 in log-SNR, two evaluations a step.

    Lu et al. 2022, arXiv:2211.01095, Algorithm 1 with ``r = 1/2``.

    Attributes:
        stage: Where the inner stage of a step from sigma = 1 on a flow path lies, whose log-SNR is
            ``-inf``: ``"middle"`` of the way from 0.9999, or ``"start"``: at 0.9999 (ComfyUI).
    """

    stage: str = field(default="middle", validator=one_of("middle", "start"))

    order = 2
    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The data estimate of the middle carries the whole step."""
        at_start = self.stage == "start" and ctx.alpha(sigma) == 0
        middle = ctx.between(sigma, sigma_next, 0.0 if at_start else 0.5)
        half = ctx.to(x, ctx.denoise(x, sigma), sigma, middle)
        return ctx.to(x, ctx.denoise(half, middle), sigma, sigma_next)
