"""Perpendicular negative conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import finite

from .pairwise import Pairwise, Weighted, weighted
from .vectors import along


def _some(instance: object, attribute: Attribute[Any], value: Weighted) -> None:
    if not value:
        raise ParameterError("PerpNeg: negatives=[] has no condition to lead away from; use 'cfg'")


@frozen(eq=False)
class PerpNeg(Pairwise):
    """Perp-Neg: leads away from negative conditions, but not from what they share with the given ones.

    Armandpour et al. 2023, arXiv:2304.04968: ``u + scale (p - sum_i weight_i n_i)``, with ``p = c - u`` and
    ``n_i`` the part of ``c_i - u`` that is perpendicular to ``p``; the same in any space.

    Its other options, `uncond`, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        negatives: Pairs of negative conditions and their weights, at least one; a pair's conditions replace
            those of the same name, as `uncond` does. Each costs a call.
        scale: Finite. With all weights 0 it is that of classifier-free guidance.

    Raises:
        ParameterError: A parameter is out of its range, or `uncond` is missing and cannot be guessed.
    """

    negatives: Weighted = field(default=(), converter=weighted, validator=_some)
    scale: float = field(default=2.0, converter=float, validator=finite)

    @property
    def extra(self) -> Weighted:
        """The negative conditions."""
        return self.negatives

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``u + scale (p - sum_i weight_i n_i)``."""
        c, u, *negatives = outputs
        positive = c - u
        change = positive
        for output, (_, weight) in zip(negatives, self.negatives, strict=True):
            negative = output - u
            change = change - (negative - along(negative, positive)) * weight
        return u + change * self.scale
