"""Adaptive projected guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import field, frozen
from torch import Tensor

from kdiff_core.parameters import finite, positive

from .pairwise import Pairwise
from .vectors import along, inner, ratio


@frozen(eq=False)
class APG(Pairwise):
    """Adaptive projected guidance: most of the guidance that is parallel to the output is left out.

    Sadat, Hilliges & Weber 2024, arXiv:2410.02416, in x0, without its momentum, which would make an output
    depend on earlier calls. Of the difference ``c - u``, cut to a length of at most `norm_threshold`, the
    part parallel to ``c`` saturates images, and counts `eta`; the rest counts 1.

    Its other options, `uncond`, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        scale: Finite. 1 is the conditional output; above 1 is guidance.
        eta: Share of the parallel part, finite. 1 is classifier-free guidance where nothing is cut.
        norm_threshold: Greatest Euclidean norm of a sample's difference, above 0; infinite: none is cut.

    Raises:
        ParameterError: A parameter is out of its range, or `uncond` is missing and cannot be guessed.
    """

    scale: float = field(default=2.0, converter=float, validator=finite)
    eta: float = field(default=0.0, converter=float, validator=finite)
    norm_threshold: float = field(default=math.inf, converter=float)

    @norm_threshold.validator
    def _positive(self, attribute: object, value: float) -> None:
        if value != math.inf:
            positive(self, attribute, value)  # type: ignore[arg-type]

    @property
    def neutral(self) -> bool:
        """Whether it is the conditional output."""
        return self.scale == 1

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``c + (scale - 1) (orthogonal + eta parallel)``."""
        c, u = outputs
        change = c - u
        if self.norm_threshold != math.inf:
            norm = inner(change, change).sqrt()
            change = change * ratio(norm.clamp_max(self.norm_threshold), norm)
        parallel = along(change, c)
        return c + (change - parallel * (1.0 - self.eta)) * (self.scale - 1.0)
