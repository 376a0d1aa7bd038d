"""Densities of noise levels to train at: exact quantiles, distribution functions and log-densities.

Each is a distribution of the level itself, cut to a range if asked. A number u of ``(0, 1)`` gives the
level below which a fraction u of the mass lies, so that stratified numbers give stratified levels.
"""

from __future__ import annotations

import math

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_process
from kdiff_core.parameters import finite, level, positive
from kdiff_core.protocols import Process


@frozen
class Truncated:
    """A density between two levels; a subclass says what it is without ends.

    Attributes:
        sigma_min: No level is below.
        sigma_max: No level is above.
    """

    sigma_min: float = field(default=0.0, converter=float, validator=level, kw_only=True)
    sigma_max: float = field(default=math.inf, converter=float, validator=level, kw_only=True)

    def __attrs_post_init__(self) -> None:
        name = type(self).__name__
        if not self.sigma_min < self.sigma_max:
            raise ParameterError(
                f"{name}: sigma_min={self.sigma_min} is not below sigma_max={self.sigma_max}"
            )
        low, high = self._ends()
        if not high - low > 0:
            raise ParameterError(f"{name}: no mass lies from {self.sigma_min} to {self.sigma_max}")

    def _ends(self) -> tuple[float, float]:
        """Return the mass below each end, without the cut."""
        low, high = self._cdf(torch.tensor([self.sigma_min, self.sigma_max], dtype=torch.float64)).tolist()
        return low, high

    def sigma(self, u: Tensor) -> Tensor:
        """Return the level below which each fraction `u` of the mass lies, float64; see `Density`."""
        low, high = self._ends()
        levels = self._quantile(low + u.double() * (high - low))
        return levels.clamp(self.sigma_min, self.sigma_max)

    def cdf(self, sigma: Tensor) -> Tensor:
        """Return the mass below each level, float64."""
        low, high = self._ends()
        return ((self._cdf(sigma.double()) - low) / (high - low)).clamp(0, 1)

    def log_pdf(self, sigma: Tensor) -> Tensor:
        """Return the log-density with respect to sigma, float64; ``-inf`` outside the range."""
        low, high = self._ends()
        exact = sigma.double()
        inside = (exact >= self.sigma_min) & (exact <= self.sigma_max) & (exact > 0)
        found = self._log_pdf(exact) - math.log(high - low)
        return torch.where(inside, found, torch.full_like(found, -math.inf))

    def _quantile(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def _cdf(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError


@frozen
class LogNormal(Truncated):
    """``log sigma`` is normal. Karras et al. 2022, arXiv:2206.00364, table 1.

    Attributes:
        mean: Of log sigma.
        std: Of log sigma, above 0.
    """

    mean: float = field(default=-1.2, converter=float, validator=finite)
    std: float = field(default=1.2, converter=float, validator=positive)

    def _quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * _normal_quantile(u)).exp()

    def _cdf(self, sigma: Tensor) -> Tensor:
        return _normal_cdf((sigma.log() - self.mean) / self.std)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        return _log_normal((sigma.log() - self.mean) / self.std) - (self.std * sigma).log()


@frozen
class LogLogistic(Truncated):
    """``log sigma`` is logistic: heavier tails than `LogNormal`. Crowson et al. 2024, arXiv:2401.11605.

    Attributes:
        mean: Of log sigma.
        scale: Of log sigma, above 0.
    """

    mean: float = field(default=math.log(0.5), converter=float, validator=finite)
    scale: float = field(default=0.5, converter=float, validator=positive)

    def _quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.scale * u.logit()).exp()

    def _cdf(self, sigma: Tensor) -> Tensor:
        return ((sigma.log() - self.mean) / self.scale).sigmoid()

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        z = (sigma.log() - self.mean) / self.scale
        return (
            -torch.nn.functional.softplus(z) - torch.nn.functional.softplus(-z) - (self.scale * sigma).log()
        )


@frozen
class LogUniform(Truncated):
    """``log sigma`` is uniform between two levels. Song et al. 2020, arXiv:2011.13456, for VE."""

    sigma_min: float = field(default=0.002, converter=float, validator=positive, kw_only=True)
    sigma_max: float = field(default=80.0, converter=float, validator=positive, kw_only=True)

    def _quantile(self, u: Tensor) -> Tensor:
        return (math.log(self.sigma_min) + u * self._width).exp()

    def _cdf(self, sigma: Tensor) -> Tensor:
        return ((sigma.log() - math.log(self.sigma_min)) / self._width).clamp(0, 1)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        return -sigma.log() - math.log(self._width)

    @property
    def _width(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@frozen
class SplitLogNormal(Truncated):
    """``log sigma`` is normal to either side of its mode, with a width for each.

    Attributes:
        mode: Of log sigma.
        std_low: Width below the mode, above 0.
        std_high: Width above it.
    """

    mode: float = field(default=-1.2, converter=float, validator=finite)
    std_low: float = field(default=1.2, converter=float, validator=positive)
    std_high: float = field(default=1.2, converter=float, validator=positive)

    @property
    def _low(self) -> float:
        """Mass below the mode: then the density has no step there."""
        return self.std_low / (self.std_low + self.std_high)

    def _quantile(self, u: Tensor) -> Tensor:
        below = self.std_low * _normal_quantile((u / (2 * self._low)).clamp(0, 0.5))
        # By symmetry from above, so that no digits are lost near 1.
        above = -self.std_high * _normal_quantile(((1 - u) / (2 * (1 - self._low))).clamp(0, 0.5))
        return (self.mode + torch.where(u < self._low, below, above)).exp()

    def _cdf(self, sigma: Tensor) -> Tensor:
        z = sigma.log() - self.mode
        below = 2 * self._low * _normal_cdf(z / self.std_low)
        above = 1 - 2 * (1 - self._low) * _normal_cdf(-z / self.std_high)
        return torch.where(z < 0, below, above)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        z = sigma.log() - self.mode
        std = torch.where(z < 0, self.std_low, self.std_high).to(z)
        return _log_normal(z / std) + math.log(2 / (self.std_low + self.std_high)) - sigma.log()


@frozen
class Cosine(Truncated):
    """The angle of noise and data is uniform: the "cosine" schedule, of v-diffusion.

    ``sigma / sigma_data = tan(pi u / 2)``. Salimans & Ho 2022, arXiv:2202.00512.

    Attributes:
        sigma_data: Scale of the levels, above 0.
    """

    sigma_data: float = field(default=1.0, converter=float, validator=positive)

    def _quantile(self, u: Tensor) -> Tensor:
        return self.sigma_data * (u * math.pi / 2).tan()

    def _cdf(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_data).atan() * (2 / math.pi)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        return math.log(2 / math.pi * self.sigma_data) - (self.sigma_data**2 + sigma**2).log()


@frozen
class LogitNormal(Truncated):
    """For flow: ``log(sigma / (1 - sigma))`` is normal. Esser et al. 2024, arXiv:2403.03206, section 3.1.

    Attributes:
        mean: Of the logit; above 0 there is more noise.
        std: Of the logit, above 0.
    """

    sigma_max: float = field(default=1.0, converter=float, validator=level, kw_only=True)
    mean: float = field(default=0.0, converter=float, validator=finite)
    std: float = field(default=1.0, converter=float, validator=positive)

    def _quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * _normal_quantile(u)).sigmoid()

    def _cdf(self, sigma: Tensor) -> Tensor:
        return _normal_cdf((sigma.clamp(0, 1).logit() - self.mean) / self.std)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        z = (sigma.logit() - self.mean) / self.std
        found = _log_normal(z) - math.log(self.std) - sigma.log() - (-sigma).log1p()
        return torch.where(sigma < 1, found, torch.full_like(found, -math.inf))


@frozen
class Uniform(Truncated):
    """The time of a noise process is uniform, as in DDPM and rectified flow.

    Attributes:
        process: The process or its name, such as "flow" or "linear".
    """

    process: Process = field(converter=get_process)

    def __attrs_post_init__(self) -> None:
        for end in ("sigma_min", "sigma_max"):
            inner = max if end == "sigma_min" else min
            object.__setattr__(self, end, inner(getattr(self, end), getattr(self.process, end)))
        super().__attrs_post_init__()

    def _quantile(self, u: Tensor) -> Tensor:
        return _each(self.process.sigma, u)

    def _cdf(self, sigma: Tensor) -> Tensor:
        return _each(self.process.t, sigma.clamp(self.process.sigma_min, self.process.sigma_max)).clamp(0, 1)

    def _log_pdf(self, sigma: Tensor) -> Tensor:
        """From the slope of the time, taken over a millionth of the level to either side."""
        near = sigma.clamp(self.sigma_min, self.sigma_max)
        low = (near * (1 - 1e-6)).clamp(min=self.process.sigma_min)
        high = (near * (1 + 1e-6)).clamp(max=self.process.sigma_max)
        return ((_each(self.process.t, high) - _each(self.process.t, low)) / (high - low)).log()


def _log_normal(z: Tensor) -> Tensor:
    """Return the log-density of the standard normal distribution."""
    return -(z**2) / 2 - math.log(2 * math.pi) / 2


def _each(function: object, values: Tensor) -> Tensor:
    found = [function(value) for value in values.flatten().tolist()]  # type: ignore[operator]
    return torch.tensor(found, dtype=torch.float64, device=values.device).reshape(values.shape)


def _normal_quantile(u: Tensor) -> Tensor:
    """Return the quantiles of the standard normal distribution."""
    found: Tensor = torch.special.ndtri(u)
    return found


def _normal_cdf(z: Tensor) -> Tensor:
    """Return the mass of the standard normal distribution below z."""
    found: Tensor = torch.special.ndtr(z)
    return found
