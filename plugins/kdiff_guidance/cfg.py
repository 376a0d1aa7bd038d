"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.parameters import finite

from .guided import Cond
from .pairwise import Pairwise, Weighted, weighted


@frozen(eq=False)
class CFG(Pairwise):
    """Classifier-free guidance: ``denoised = u + scale (c - u)``, the same in any space.

    Ho & Salimans 2022, arXiv:2207.12598, eq. 6. ``c`` is the denoiser's output under the given conditions,
    ``u`` its output under `uncond`; in the paper's notation ``scale = 1 + w``. Each further condition adds
    ``weight (c_i - u)``, a negative weight leads away from it (Liu et al. 2022, arXiv:2206.01714).

    Its other options, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        scale: Finite. 1 is the conditional output, 0 the unconditional one; above 1 is guidance.
        uncond: As of `Pairwise`.
        others: Pairs of further conditions and their finite weights; a pair's conditions replace those of
            the same name, as `uncond` does. Each costs a call.

    Raises:
        ParameterError: `scale` is not finite, `others` are no such pairs, or `uncond` is missing and cannot
            be guessed.
    """

    scale: float = field(default=2.0, converter=float, validator=finite)
    uncond: Cond | None = None
    others: Weighted = field(default=(), converter=weighted, kw_only=True)

    @property
    def neutral(self) -> bool:
        """Whether it is the conditional output."""
        return self.scale == 1 and not self.others

    @property
    def extra(self) -> Weighted:
        """The further conditions."""
        return self.others

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``u + scale (c - u) + sum_i weight_i (c_i - u)``."""
        c, u, *others = outputs
        # One kernel; by its definition exactly `u` at scale 0.
        guided = torch.lerp(u, c, self.scale)
        for other, (_, weight) in zip(others, self.others, strict=True):
            guided = guided + (other - u) * weight
        return guided


def interval(denoiser: Any, sigma_low: float, sigma_high: float, scale: float = 2.0, **options: Any) -> CFG:
    """Classifier-free guidance between two levels only.

    Kynkaanniemi et al. 2024, arXiv:2404.07724. All other guidance has the two levels as options.

    Args:
        denoiser: The denoiser to guide.
        sigma_low: Level at and below which there is no guidance.
        sigma_high: Level above which there is none.
        scale: As of `CFG`.
        **options: Other options of `CFG`.

    Raises:
        ParameterError: The levels are no interval, or what `CFG` refuses.
    """
    return CFG(denoiser, scale, sigma_low=sigma_low, sigma_high=sigma_high, **options)
