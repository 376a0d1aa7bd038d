"""Guidance by a weaker model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_denoiser
from kdiff_core.parameters import finite
from kdiff_core.path import as_path

from .guided import Cond, Guidance, denoises


def _by_name(value: Any) -> Any:
    return get_denoiser(value) if isinstance(value, str) else value


@frozen(eq=False)
class Autoguidance(Guidance):
    """Autoguidance: ``w + scale (d - w)``, away from a weaker model; the same in any space.

    Karras et al. 2024, arXiv:2406.02507. ``d`` and ``w`` are the outputs of the two models under the same
    conditions. In `predict` the weaker model's output is the unconditional one.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: The denoiser to guide.
        weak: A weaker one for the same data and path, or its name: smaller, or trained for less long.
        scale: Finite. 1 is the denoiser itself, 0 the weaker one; above 1 is guidance.

    Raises:
        ParameterError: A parameter is out of its range, or the two are on different paths.
    """

    weak: Any = field(converter=_by_name, validator=denoises)
    scale: float = field(default=2.0, converter=float, validator=finite)

    def __attrs_post_init__(self) -> None:
        path = as_path(getattr(self.weak, "path", "ve"))
        if path is not self._path:
            raise ParameterError(
                f"Autoguidance: the denoiser is on {self._path}, the weaker one on {path}; both need the same"
            )

    @property
    def batch_exact(self) -> bool:
        """Whether no sample's output depends on its batch by a bit: where both models say so."""
        return all(getattr(model, "batch_exact", False) for model in (self.denoiser, self.weak))

    @property
    def neutral(self) -> bool:
        """Whether it is the denoiser itself."""
        return self.scale == 1

    def predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        """Return the guided output, the denoiser's and the weaker model's."""
        return self._predict(x, sigma, **cond)

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """The outputs of both."""
        output, weak = self.denoiser(x, sigma, **cond), self.weak(x, sigma, **cond)
        return Prediction(output, output, weak), [output, weak]

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``w + scale (d - w)``."""
        d, w = outputs
        return torch.lerp(w, d, self.scale)
