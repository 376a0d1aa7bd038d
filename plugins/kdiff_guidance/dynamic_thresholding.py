"""Dynamic thresholding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.parameters import fraction, positive

from .guided import Correction
from .vectors import column


@frozen(eq=False)
class DynamicThresholding(Correction):
    """Dynamic thresholding: each sample's extreme values are cut, and the rest is scaled into the range.

    Saharia et al. 2022, arXiv:2205.11487 (Imagen), in x0: with ``s`` the `quantile` of a sample's absolute
    values, but at least `bound`, its values are clipped to ``[-s, s]`` and multiplied by ``bound / s``. A
    sample within the range stays as it is. For images in pixels: latents have no range.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: A denoiser, guided or not, of data within ``[-bound, bound]``.
        quantile: Above 0 and at most 1; of the values in order, interpolated.
        bound: Largest absolute value of the data, above 0.

    Raises:
        ParameterError: A parameter is out of its range.
    """

    quantile: float = field(default=0.995, converter=float, validator=fraction)
    bound: float = field(default=1.0, converter=float, validator=positive)

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The output, clipped and scaled."""
        (denoised,) = outputs
        most = column(torch.stack([_quantile(row, self.quantile) for row in denoised.abs()]), denoised)
        s = most.clamp_min(self.bound)
        return torch.where(s == self.bound, 1.0, self.bound / s) * denoised.clamp(-s, s)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Quantile of all values, interpolated. `torch.quantile` takes no more than 2**24 of them."""
    flat = values.flatten()
    place = q * (flat.numel() - 1)
    below = flat.kthvalue(math.floor(place) + 1).values
    above = flat.kthvalue(math.ceil(place) + 1).values
    return below + (above - below) * (place - math.floor(place))
