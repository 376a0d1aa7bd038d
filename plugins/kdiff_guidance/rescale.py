"""Guidance rescaled to the contrast of the conditional output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.parameters import one_of

from .guided import Cond, Correction, has_parts
from .vectors import SPACES, Space, check_space, from_space, inner, to_space


def _share(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ParameterError(f"Rescale: phi={value!r} must be between 0 and 1; 0 changes nothing")


@frozen(eq=False)
class Rescale(Correction):
    """Rescaled guidance: the guided output gets the standard deviation of the conditional one.

    Lin et al. 2023, arXiv:2305.08891, for any guidance beneath: ``phi g std(c) / std(g) + (1 - phi) g``,
    with the standard deviations over all values of a sample; in v.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: A guided denoiser.
        phi: Share of the rescaled output, 0 to 1.
        space: What ``g`` and ``c`` are: ``"v"``, ``"slope"`` (eps on VE, v on flow), ``"eps"`` or ``"x0"``.

    Raises:
        CapabilityError: The denoiser is not guided.
        ParameterError: A parameter is out of its range.
    """

    phi: float = field(default=0.7, converter=float, validator=_share)
    space: Space = field(default="v", validator=one_of(*SPACES), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not has_parts(self.denoiser):
            raise CapabilityError(
                f"Rescale: {type(self.denoiser).__name__} has no predict(x, sigma, **cond), whose "
                "conditional output gives the contrast; wrap guidance: kd.get_guidance('cfg', model)"
            )
        check_space(self.space, self._path)

    @property
    def neutral(self) -> bool:
        """Whether it is the output beneath."""
        return self.phi == 0

    @property
    def predict(self) -> Callable[..., Prediction]:
        """The rescaled output beside the conditional and unconditional ones."""
        return self._predict

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """The guided and the conditional output."""
        found = self.parts(x, sigma, cond)
        return found, [found.denoised, found.cond]

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The formula in its space."""
        g, c = (to_space(self.space, self._path, x, sigma, output) for output in outputs)
        of_g, of_c = _deviation(g), _deviation(c)
        factor = torch.where(of_g == 0, 1.0, of_c / torch.where(of_g == 0, 1.0, of_g))
        return from_space(self.space, self._path, x, sigma, g * (self.phi * factor + (1.0 - self.phi)))


def _deviation(value: Tensor) -> Tensor:
    """Root of each sample's summed squares about its mean."""
    centred = value - inner(value, torch.ones_like(value)) / (value.numel() / len(value))
    return inner(centred, centred).sqrt()
