"""Densities that are written as their quantiles, whose distribution function is found by bisection."""

from __future__ import annotations

import math

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import level, positive

from .densities import Truncated

_BISECTIONS = 60  # more than the digits of float64


@frozen
class ByQuantile(Truncated):
    """A density whose quantile function rises from its lowest to its highest level."""

    def _slope(self, u: Tensor) -> Tensor:
        """Return the derivative of the quantile function."""
        raise NotImplementedError

    def _cdf(self, sigma: Tensor) -> Tensor:
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = self._quantile(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        # The ends are met exactly: the quantile of a mass that rounds to 1 may lie a bit below the level.
        ends = self._quantile(torch.tensor([0.0, 1.0], dtype=sigma.dtype, device=sigma.device))
        found = torch.where(sigma <= ends[0], torch.zeros_like(sigma), high)
        return torch.where(sigma >= ends[1], torch.ones_like(sigma), found)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        return -self._slope(self._cdf(sigma)).log()


def _check_scale(instance: object, attribute: Attribute[float], value: float) -> None:
    if not -1 <= value <= 2 / (math.pi - 2):
        raise ParameterError(
            f"Mode: scale={value} must be from -1 to {2 / (math.pi - 2):.4f}; outside, the levels do not rise"
        )


@frozen
class Mode(ByQuantile):
    """For flow: a density on ``[0, 1]`` with a mode in its middle. Esser et al. 2024, arXiv:2403.03206.

    There ``sigma = 1 - u - s (cos^2(pi u / 2) - 1 + u)``; here rising, with ``1 - u`` for u.

    Attributes:
        scale: s, from -1 (the ends are favoured) by 0 (uniform) to 1.75 (the middle is).
    """

    sigma_max: float = field(default=1.0, converter=float, validator=level, kw_only=True)
    scale: float = field(default=1.29, converter=float, validator=_check_scale)

    def _quantile(self, u: Tensor) -> Tensor:
        return u - self.scale * ((u * math.pi / 2).sin() ** 2 - u)

    def _slope(self, u: Tensor) -> Tensor:
        return 1 - self.scale * (math.pi / 2 * (u * math.pi).sin() - 1)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        found = super()._log_pdf(sigma)
        return torch.where(sigma <= 1, found, torch.full_like(found, -math.inf))


@frozen
class CosineInterpolated(ByQuantile):
    """The cosine schedule, shifted by the size of the image, with another shift at either end.

    ``log sigma = log tan(pi u / 2) + log(sigma_data image_size) - (1 - u) log size_low - u log size_high``.
    The log-SNR of a shifted schedule is ``-2 log tan(pi u / 2) + 2 log(size / image_size)``; between two
    shifts it is interpolated in u. Hoogeboom et al. 2023, arXiv:2301.11093, section 3.1.

    Attributes:
        image_size: Side of the images.
        size_low: Side at which low levels are as in the unshifted schedule.
        size_high: The same of high levels, less than ``e^pi`` (23) times `size_low`.
        sigma_data: Scale of the levels.
    """

    image_size: float = field(converter=float, validator=positive)
    size_low: float = field(default=32.0, converter=float, validator=positive)
    size_high: float = field(default=32.0, converter=float, validator=positive)
    sigma_data: float = field(default=1.0, converter=float, validator=positive)

    def __attrs_post_init__(self) -> None:
        if not self.size_high < math.exp(math.pi) * self.size_low:
            raise ParameterError(
                f"CosineInterpolated: size_high={self.size_high} must be less than {math.exp(math.pi):.1f} "
                f"times size_low={self.size_low}; beyond, the levels do not rise"
            )
        super().__attrs_post_init__()

    def _quantile(self, u: Tensor) -> Tensor:
        shift = math.log(self.sigma_data * self.image_size / self.size_low)
        tangent = torch.where(u < 1, (u * math.pi / 2).tan(), torch.full_like(u, math.inf))
        return tangent * (shift - u * math.log(self.size_high / self.size_low)).exp()

    def _slope(self, u: Tensor) -> Tensor:
        relative = math.pi / (u * math.pi).sin() - math.log(self.size_high / self.size_low)
        return self._quantile(u) * relative
