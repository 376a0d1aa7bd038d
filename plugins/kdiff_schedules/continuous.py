"""Continuous noise processes: VP, VE and EDM, the tangent of TrigFlow, StableCascade's cosine."""

from __future__ import annotations

import math
from typing import ClassVar

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, positive
from kdiff_core.protocols import PathName


@frozen
class ContinuousProcess:
    """A process with a formula for its level at each time.

    Its time ``t`` in ``[0, 1]`` runs over the part of the formula's own time that lies between its ends.
    A family writes `level`, `time` and `ends`. `prediction` says what the model's output is.
    """

    path: ClassVar[PathName] = "ve"
    prediction: str = field(default="epsilon", kw_only=True)

    def level(self, time: float) -> float:
        """Return the level at a time of the formula."""
        raise NotImplementedError

    def time(self, sigma: float) -> float:
        """Return the formula's time of a level, the inverse of `level`."""
        raise NotImplementedError

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest level."""
        raise NotImplementedError

    @property
    def sigma_min(self) -> float:
        """The lowest level."""
        return self.ends()[0]

    @property
    def sigma_max(self) -> float:
        """The highest level."""
        return self.ends()[1]

    def sigma(self, t: float) -> float:
        """Return the noise level at time `t`, usually in ``[0, 1]``; both ends are met exactly."""
        low, high = self.ends()
        if t in (0, 1):
            return high if t else low
        first, last = self.time(low), self.time(high)
        level = self.level(first + t * (last - first))
        return min(max(level, low), high) if 0 < t < 1 else level

    def t(self, sigma: float) -> float:
        """Return the time at which the level is `sigma`, the inverse of `sigma`."""
        low, high = self.ends()
        if sigma in (low, high):
            return float(sigma == high)
        first, last = self.time(low), self.time(high)
        return (self.time(sigma) - first) / (last - first)


@frozen
class ContinuousVP(ContinuousProcess):
    """``sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)``, ``t`` from `eps_s` to 1.

    Song et al. 2020, arXiv:2011.13456, eq. 11 and 33; as a noise level: Karras et al. 2022,
    arXiv:2206.00364, table 1. Levels 0.0105 to 152.

    Args:
        beta_d: Growth of the noise rate over ``t`` in [0, 1], above 0.
        beta_min: Noise rate at ``t = 0``, above 0.
        eps_s: Time of the lowest level, between 0 and 1.
    """

    beta_d: float = field(default=19.9, converter=float, validator=positive)
    beta_min: float = field(default=0.1, converter=float, validator=positive)
    eps_s: float = field(default=1e-3, converter=float, validator=below_one)

    def level(self, time: float) -> float:
        """Return the level at a time of at least 0."""
        return math.sqrt(math.expm1(self.beta_d * time * time / 2 + self.beta_min * time))

    def time(self, sigma: float) -> float:
        """Return the time of a level."""
        grown = math.log1p(sigma * sigma)
        # The root of the quadratic, in the form that does not cancel at low levels.
        return 2 * grown / (self.beta_min + math.sqrt(self.beta_min**2 + 2 * self.beta_d * grown))

    def ends(self) -> tuple[float, float]:
        """Return the levels at `eps_s` and at 1."""
        return self.level(self.eps_s), self.level(1.0)


@frozen
class _Between(ContinuousProcess):
    """A process between two levels that are given."""

    sigma_min: float = field(default=0.02, converter=float, validator=positive)
    sigma_max: float = field(default=100.0, converter=float, validator=positive)

    def __attrs_post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ParameterError(
                f"{type(self).__name__}: sigma_min={self.sigma_min} must be below sigma_max={self.sigma_max}"
            )

    def ends(self) -> tuple[float, float]:
        """Return the levels given."""
        return self.sigma_min, self.sigma_max


@frozen
class LogUniform(_Between):
    """``sigma(t) = sigma_min (sigma_max / sigma_min)^t``: a variance-exploding process, EDM's range too.

    Song et al. 2020, arXiv:2011.13456. 0.02 to 100 are VE's ends, 0.002 to 80 EDM's, in Karras et
    al. 2022, arXiv:2206.00364, table 1.

    Args:
        sigma_min: Lowest level, above 0.
        sigma_max: Highest level.
    """

    def level(self, time: float) -> float:
        """Return the level of a logarithm."""
        return math.exp(time)

    def time(self, sigma: float) -> float:
        """Return the logarithm of a level."""
        return math.log(sigma)


@frozen
class Tangent(_Between):
    """``sigma(angle) = sigma_data tan(angle)``: a state is ``cos(angle) x0 + sin(angle) sigma_data noise``.

    TrigFlow, with `sigma_data` 0.5: Lu & Song 2024, arXiv:2410.11081; its angles are uniform in ``t``. With
    `sigma_data` 1 it is the continuous v process, ``tan(pi t / 2)``: Salimans & Ho 2022, arXiv:2202.00512.

    Args:
        sigma_min: Lowest level, above 0.
        sigma_max: Highest level.
        sigma_data: The level at an angle of 45 degrees, above 0.
    """

    sigma_data: float = field(default=1.0, converter=float, validator=positive)

    def level(self, time: float) -> float:
        """Return the level at an angle between 0 and pi/2."""
        return self.sigma_data * math.tan(time)

    def time(self, sigma: float) -> float:
        """Return the angle of a level."""
        return math.atan(sigma / self.sigma_data)


@frozen
class StableCascade(ContinuousProcess):
    """``abar(u) = cos^2((u + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2)``, log-SNR shifted.

    Würstchen: Pernias et al. 2023, arXiv:2306.00637. Only the part where ``abar`` is between 1e-4 and
    0.9999, which is where hosts cut it, is the process; ``2 log(1 / shift)`` is added to its log-SNR. The
    model's own time ``u`` is `time`.

    Args:
        shift: Above 0; 2 for the prior of Stable Cascade in ComfyUI, 1 for the decoder.
        offset: ``s``, above 0.
    """

    shift: float = field(default=1.0, converter=float, validator=positive)
    offset: float = field(default=0.008, converter=float, validator=positive)

    def level(self, time: float) -> float:
        """Return the level at the model's time."""
        turn = math.pi / 2 / (1 + self.offset)
        abar = (math.cos((time + self.offset) * turn) / math.cos(self.offset * turn)) ** 2
        return self.shift * math.sqrt((1 - abar) / abar)

    def time(self, sigma: float) -> float:
        """Return the model's time of a level."""
        turn = math.pi / 2 / (1 + self.offset)
        root = 1 / math.hypot(1.0, sigma / self.shift)
        return math.acos(root * math.cos(self.offset * turn)) / turn - self.offset

    def ends(self) -> tuple[float, float]:
        """Return the levels where ``abar`` is 0.9999 and 1e-4."""
        return self.shift * math.sqrt(1e-4 / 0.9999), self.shift * math.sqrt(0.9999 / 1e-4)
