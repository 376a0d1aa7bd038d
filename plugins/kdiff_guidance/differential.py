"""Differential diffusion: each place of an image may change by a strength of its own."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core import Grid

from .inpaint import Inpaint

# A strength of 0.7 in single precision is a little less, and still the last 7 of 10 steps.
_SLACK = 1e-4


def _grid(levels: Any) -> Grid:
    return Grid.of(levels)


@frozen(eq=False)
class Differential(Inpaint):
    """Image to image with a strength for each place: the part that may change grows as the noise falls.

    Levin & Fried 2023, arXiv:2306.00950. With n steps a place of strength s is kept, as `Inpaint` keeps it,
    until the last ``floor(s n)`` steps, in which it is the model's. A map of one value is image to image of
    that strength on this grid, exactly for samplers that evaluate at the grid's levels alone and keep no
    history; a map of ones is the run without it.

    Its other options, `noise`, `sigma_low` and `sigma_high`, are those of `Inpaint`.

    Args:
        denoiser: The denoiser, guided or not.
        image: As of `Inpaint`.
        mask: The strength of each place, 0 (kept) to 1 (made anew); its shapes are those of `Inpaint`.
        sigmas: The run's levels, a grid or anything that makes one.

    Raises:
        ParameterError: `image` is no state, or `mask` has values outside 0 to 1.
        GridError: The levels are no grid.
    """

    sigmas: Any = field(converter=_grid)

    def share(self, mask: Tensor, sigma: Tensor) -> Tensor:
        """1 from the level on at which a place's last steps begin, 0 above it."""
        steps = self.sigmas.steps
        left = torch.floor(mask * steps + _SLACK).long()
        # In the precision of the levels that a denoiser is given. All steps: whatever the level, as of churn.
        levels = torch.tensor([torch.inf, *list(self.sigmas)[1:]], dtype=torch.float64)
        levels[-1] = 0.0
        opens = levels.to(sigma.device, sigma.dtype)[steps - left]
        return (sigma <= opens).to(mask.dtype)
