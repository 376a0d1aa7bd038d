"""Frequency-decoupled guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import finite, whole

from .pairwise import Pairwise

# Binomial weights, as in Burt & Adelson 1983, by distance.
_WEIGHTS = (0.375, 0.25, 0.0625)


@frozen(eq=False)
class FDG(Pairwise):
    """Frequency-decoupled guidance: a scale for the coarse and one for the fine part of ``c - u``, in x0.

    Sadat et al. 2025, arXiv:2506.19713, for any linear, invertible split of frequencies. Here the coarse
    part is blurred over the state's last two dimensions with the five binomial weights of the Laplacian
    pyramid, `levels` times at distances 1, 2, 4, ..., without subsampling; the edge is repeated outwards.

    Its other options, `uncond`, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        low: Scale of the coarse part, finite; 1 is that of the conditional output.
        high: Scale of the fine part, finite.
        levels: How often the coarse part is blurred, at least 1.

    Raises:
        ParameterError: A parameter is out of its range, or `uncond` is missing and cannot be guessed.
    """

    low: float = field(default=1.5, converter=float, validator=finite)
    high: float = field(default=3.0, converter=float, validator=finite)
    levels: int = field(default=1, validator=whole(1))

    @property
    def neutral(self) -> bool:
        """Whether it is the conditional output."""
        return self.low == self.high == 1

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``u + low coarse + high fine``."""
        c, u = outputs
        if u.ndim < 4:
            raise ParameterError(
                f"FDG: a state of shape {tuple(u.shape)} has no height and width; it splits the frequencies "
                "of the last two of at least four dimensions, (B, C, H, W)"
            )
        change = c - u
        coarse = change
        for k in range(self.levels):
            coarse = blurred(blurred(coarse, -1, 2**k), -2, 2**k)
        return u + coarse * self.low + (change - coarse) * self.high


def blurred(image: Tensor, dim: int, distance: int) -> Tensor:
    """Blur along one dimension with five binomial weights, the edge repeated outwards."""
    length = image.shape[dim]
    places = torch.arange(length, device=image.device)
    total = image * _WEIGHTS[0]
    for k, weight in enumerate(_WEIGHTS[1:], 1):
        for side in (-k, k):
            near = (places + side * distance).clamp(0, length - 1)
            total = total + image.index_select(dim, near) * weight
    return total
