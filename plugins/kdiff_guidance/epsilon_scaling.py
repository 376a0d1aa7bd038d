"""Epsilon scaling."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from torch import Tensor

from kdiff_core.parameters import positive

from .guided import Correction


@frozen(eq=False)
class EpsilonScaling(Correction):
    """Epsilon scaling: the predicted noise is made a little smaller, against the drift of sampling.

    Ning et al. 2023, arXiv:2308.15321: ``eps / factor``. On flow paths likewise the velocity: in both
    ``dx/dsigma = (x - D) / sigma`` is divided, so that ``D`` becomes ``x + (D - x) / factor``.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: A denoiser, guided or not.
        factor: Above 0; 1 changes nothing, 1.005 is usual.

    Raises:
        ParameterError: `factor` is not above 0.
    """

    factor: float = field(default=1.005, converter=float, validator=positive)

    @property
    def neutral(self) -> bool:
        """Whether it is the output beneath."""
        return self.factor == 1

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``x + (D - x) / factor``."""
        (denoised,) = outputs
        return x + (denoised - x) / self.factor
