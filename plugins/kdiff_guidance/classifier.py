"""Classifier guidance."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import DenoiserError
from kdiff_core.parameters import finite

from .gradient import Gradient, slopes
from .guided import Cond, denoises


@frozen(eq=False)
class Classifier(Gradient):
    """Classifier guidance: ``D + scale (sigma^2 / alpha) grad_x log p(y | x, sigma)``.

    Dhariwal & Nichol 2021, arXiv:2105.05233: the score of a classifier of noisy states is added to the
    model's; in eps, ``eps - scale sigma grad_x log p``. With an exact classifier and ``scale = 1`` it is the
    conditional model.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: The denoiser to guide.
        classifier: ``classifier(x, sigma, **cond) -> (B,)``, the log-likelihood of what is wanted of each
            sample; differentiable in `x`, each sample alone. It may see noisy states of any level.
        scale: Finite; 0 is the output beneath.

    Raises:
        ParameterError: A parameter is out of its range.
    """

    classifier: Any = field(validator=denoises)
    scale: float = field(default=1.0, converter=float, validator=finite)

    @property
    def neutral(self) -> bool:
        """Whether it is the output beneath."""
        return self.scale == 0

    def weight(self) -> float:
        """The scale."""
        return self.scale

    def score(self, x: Any, sigma: Tensor, denoised: Any, cond: Cond, create_graph: bool) -> Any:
        """The classifier's."""
        found = self.classifier(x, sigma, **cond)
        if not isinstance(found, Tensor) or found.shape != sigma.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DenoiserError(
                f"Classifier: the classifier returned {shape}; it returns one log-likelihood a sample, "
                f"({len(sigma)},)"
            )
        return slopes(found, x, torch.ones_like(found), create_graph, "Classifier: the likelihood")
