"""Guidance by the gradient of a likelihood: what classifier and posterior guidance share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import DenoiserError
from kdiff_core.state import flatten, rebuild

from .guided import Cond, Correction
from .vectors import ratio


@frozen(eq=False)
class Gradient(Correction):
    """Adds a score: ``D + scale (sigma^2 / alpha) grad_x log p(y | x)``, Tweedie's formula for the sum.

    On a flow path it adds nothing at level 1, where a state says nothing of the data. Gradients through a
    run are recorded where the state or a condition requires one.
    """

    # A gradient is made of sums in an order that torch chooses.
    batch_exact = False

    def score(self, x: Any, sigma: Tensor, denoised: Any, cond: Cond, create_graph: bool) -> Any:
        """Return ``grad_x log p(y | x)`` of each sample, like `x`.

        Args:
            x: State, whose tensors require a gradient.
            sigma: Levels, ``(B,)``.
            denoised: The output for it, with its graph.
            cond: Conditions.
            create_graph: Whether gradients are to be taken of the result.
        """
        raise NotImplementedError

    def weight(self) -> float:
        """Factor of the score."""
        raise NotImplementedError

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """The outputs beneath, and the score."""
        wanted = torch.is_grad_enabled() and any(
            isinstance(value, Tensor) and value.requires_grad for value in (*flatten(x), *cond.values())
        )
        with torch.enable_grad():
            tracked = [
                leaf if wanted and leaf.requires_grad else leaf.detach().requires_grad_()
                for leaf in flatten(x)
            ]
            at = rebuild(x, tracked)
            found, (denoised,) = super().evaluate(at, sigma, cond, in_parts)
            score = self.score(at, sigma, denoised, cond, wanted)
        if wanted:
            return found, [denoised, score]
        return Prediction(*map(_detached, found)), [_detached(denoised), _detached(score)]

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``D + scale (sigma^2 / alpha) score``."""
        denoised, score = outputs
        alpha = torch.ones_like(sigma) * self._path.alpha(sigma)
        return denoised + score * (ratio(sigma * sigma, alpha) * self.weight())


def slopes(of: Any, x: Any, along: Any, create_graph: bool, what: str) -> Any:
    """Gradient of the inner product of two states with respect to another, like it.

    Args:
        of: What depends on `x`, each sample on its own.
        x: State, whose tensors require a gradient.
        along: Like `of`.
        create_graph: Whether gradients are to be taken of the result.
        what: Name of `of`, for the message.

    Raises:
        DenoiserError: It has none.
    """
    leaves = flatten(x)
    try:
        found = torch.autograd.grad(
            flatten(of), leaves, flatten(along), create_graph=create_graph, materialize_grads=True
        )
    except RuntimeError as error:
        raise DenoiserError(f"{what} has no gradient with respect to the state: {error}") from error
    return rebuild(x, found)


def _detached(state: Any) -> Any:
    return rebuild(state, [leaf.detach() for leaf in flatten(state)])
