"""The families of betas.

Names differ between projects. kdiff follows diffusers: "linear" is linear in beta, "scaled_linear" is
linear in the root of beta (Stable Diffusion). ComfyUI and CompVis call the former "sqrt_linear" and the
latter "linear"; those names are not aliases here, since "linear" would then mean two things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, positive, whole

from .process import ZERO_SNR_ABAR, BetaProcess


def line(first: float, last: float, n: int) -> list[float]:
    """Return `n` numbers from `first` to `last`, evenly spaced."""
    return [first + (last - first) * i / (n - 1) for i in range(n)]


def ratios(abar: Callable[[float], float], n: int, beta_max: float) -> list[float]:
    """Return ``beta_i = 1 - abar((i+1)/n) / abar(i/n)``, cut at `beta_max`."""
    return [min(1 - abar((i + 1) / n) / abar(i / n), beta_max) for i in range(n)]


@frozen
class LinearBetas(BetaProcess):
    """Betas on a line. Ho et al. 2020, arXiv:2006.11239, section 4. ComfyUI's "sqrt_linear".

    Args:
        beta_start: First beta, between 0 and 1.
        beta_end: Last beta, between 0 and 1.
    """

    beta_start: float = field(default=1e-4, converter=float, validator=below_one)
    beta_end: float = field(default=2e-2, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return line(self.beta_start, self.beta_end, self.steps)


@frozen
class ScaledLinearBetas(BetaProcess):
    """Roots of betas on a line: Stable Diffusion's table. ComfyUI's and CompVis's "linear".

    Rombach et al. 2021, arXiv:2112.10752 (as released; levels 0.0292 to 14.6).

    Args:
        beta_start: First beta, between 0 and 1.
        beta_end: Last beta, between 0 and 1.
    """

    beta_start: float = field(default=0.00085, converter=float, validator=below_one)
    beta_end: float = field(default=0.012, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return [b * b for b in line(math.sqrt(self.beta_start), math.sqrt(self.beta_end), self.steps)]


@frozen
class SqrtBetas(BetaProcess):
    """Squares of betas on a line: CompVis's and ComfyUI's "sqrt".

    Args:
        beta_start: Square of the first beta, between 0 and 1.
        beta_end: Square of the last beta, between 0 and 1.
    """

    beta_start: float = field(default=1e-4, converter=float, validator=below_one)
    beta_end: float = field(default=2e-2, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return [math.sqrt(b) for b in line(self.beta_start, self.beta_end, self.steps)]


@frozen
class SigmoidBetas(BetaProcess):
    """Betas on a sigmoid between -6 and 6. GeoDiff: Xu et al. 2022, arXiv:2203.02923.

    Not the sigmoid of ``abar`` that other projects call so.

    Args:
        beta_start: Beta towards which they fall at the start, between 0 and 1.
        beta_end: Beta towards which they rise at the end, between 0 and 1.
    """

    beta_start: float = field(default=1e-4, converter=float, validator=below_one)
    beta_end: float = field(default=2e-2, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        span = self.beta_end - self.beta_start
        return [self.beta_start + span / (1 + math.exp(-x)) for x in line(-6.0, 6.0, self.steps)]


@frozen
class CosineBetas(BetaProcess):
    """``abar(u) = cos^2((u + offset) / (1 + offset) pi / 2)``, ``beta_i = 1 - abar((i+1)/n) / abar(i/n)``.

    Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17. diffusers' "squaredcos_cap_v2"; iDDPM's levels in
    Karras et al. 2022, arXiv:2206.00364, table 1, are these too.

    Args:
        offset: Keeps the first betas from vanishing, above 0.
        beta_max: Betas are cut here, between 0 and 1.
    """

    offset: float = field(default=0.008, converter=float, validator=positive)
    beta_max: float = field(default=0.999, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""

        def abar(u: float) -> float:
            return math.cos((u + self.offset) / (1 + self.offset) * math.pi / 2) ** 2

        return ratios(abar, self.steps, self.beta_max)


@frozen
class LaplaceBetas(BetaProcess):
    """The log-SNR at the quantiles of a Laplace distribution. Hang & Gu 2024, arXiv:2407.03297.

    ``l(u) = -b sgn(1/2 - u) log(1 - 2 |1/2 - u| + 1e-6)``, and, as diffusers has it,
    ``abar = sqrt(e^l / (1 + e^l))`` with ``beta_i = 1 - abar((i+1)/n) / abar(i/n)``.

    Args:
        b: Width of the distribution, above 0.
        beta_max: Betas are cut here, between 0 and 1.
    """

    b: float = field(default=0.5, converter=float, validator=positive)
    beta_max: float = field(default=0.999, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""

        def abar(u: float) -> float:
            snr = math.exp(-self.b * math.copysign(math.log(1 - 2 * abs(0.5 - u) + 1e-6), u - 0.5))
            return math.sqrt(snr / (1 + snr))

        return ratios(abar, self.steps, self.beta_max)


@frozen
class ExponentialBetas(BetaProcess):
    """``abar(u) = e^(-rate u)``: one beta for all entries. diffusers' "exp".

    Args:
        rate: How much ``log abar`` falls over the table, above 0.
        beta_max: Betas are cut here, between 0 and 1.
    """

    rate: float = field(default=12.0, converter=float, validator=positive)
    beta_max: float = field(default=0.999, converter=float, validator=below_one)

    def betas(self) -> list[float]:
        """Return the noise rates."""
        return [min(-math.expm1(-self.rate / self.steps), self.beta_max)] * self.steps


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    found = values.tolist() if hasattr(values, "tolist") else values
    return tuple(float(value) for value in found)


@frozen
class GivenBetas(BetaProcess):
    """Betas as given, such as a checkpoint's own ("trained_betas").

    Args:
        betas: At least two betas, each between 0 and 1. A list, array or tensor.
    """

    values: tuple[float, ...] = field(converter=_numbers, alias="betas")
    steps: int = field(init=False, validator=whole(2))

    @steps.default
    def _length(self) -> int:
        return len(self.values)

    @values.validator
    def _check(self, attribute: object, values: tuple[float, ...]) -> None:
        for i, value in enumerate(values):
            if not 0 < value < 1:
                raise ParameterError(f"GivenBetas: betas[{i}]={value} must be between 0 and 1")

    def betas(self) -> tuple[float, ...]:
        """Return the noise rates."""
        return self.values


@frozen
class GivenAlphas(BetaProcess):
    """A table of ``abar`` as given, such as a checkpoint's ``alphas_cumprod``.

    Args:
        alphas_cumprod: At least two numbers between 0 and 1, falling; a last 0 becomes `abar_min`.
    """

    values: tuple[float, ...] = field(converter=_numbers, alias="alphas_cumprod")
    steps: int = field(init=False, validator=whole(2))

    @steps.default
    def _length(self) -> int:
        return len(self.values)

    @values.validator
    def _check(self, attribute: object, values: tuple[float, ...]) -> None:
        for i, value in enumerate(values):
            if not (0 < value < 1 or (value == 0 and i == len(values) - 1)):
                raise ParameterError(f"GivenAlphas: alphas_cumprod[{i}]={value} must be between 0 and 1")
            if i and value >= values[i - 1]:
                raise ParameterError(
                    f"GivenAlphas: alphas_cumprod[{i}]={value} must be below the one before, {values[i - 1]}"
                )

    def betas(self) -> list[float]:
        """Return the noise rates that these come from."""
        last = (1.0, *self.values[:-1])
        return [1 - now / before for now, before in zip(self.values, last, strict=True)]

    def decay(self) -> list[float]:
        """Return ``-log abar`` of each entry."""
        return [-math.log(value or self.abar_min) for value in self.values]


def cogvideox(prediction: str = "v_prediction") -> ScaledLinearBetas:
    """CogVideoX's table: scaled_linear, its SNR shifted by 3, then no signal left at its end."""
    return ScaledLinearBetas(snr_shift=3.0, zero_snr=True, abar_min=ZERO_SNR_ABAR, prediction=prediction)
