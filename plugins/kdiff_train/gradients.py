"""The norm of gradients, and their noise scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def squared_norm(parameters: Iterable[Any]) -> Tensor:
    """Return the squared norm of the gradients that there are, float32 on their device."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    return torch.stack([norm.float() for norm in torch._foreach_norm(grads)]).square().sum()


class NoiseScale:
    """The gradient noise scale: the batch beyond which more images help little.

    Of the squared norms of a micro-batch's and of the batch's gradients, which differ by the noise in the
    former: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1. Numerator and denominator are averaged
    over updates before they are divided. Stratified levels lower the noise of a batch, and so the estimate.

    Attributes:
        decay: What the averages keep at an update.
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self.noise = self.signal = self.weight = 0.0

    def update(self, small: float, large: float, few: int, many: int) -> None:
        """Take in the squared norms of the gradients of means over `few` and over `many` images."""
        noise = (small - large) / (1 / few - 1 / many)
        signal = (many * large - few * small) / (many - few)
        self.noise += (1 - self.decay) * (noise - self.noise)
        self.signal += (1 - self.decay) * (signal - self.signal)
        self.weight += (1 - self.decay) * (1 - self.weight)

    @property
    def value(self) -> float | None:
        """The noise scale in images; None where there is none yet, or it cannot be told from noise."""
        return self.noise / self.signal if self.weight and self.signal > 0 and self.noise > 0 else None

    def state(self) -> list[float]:
        """Return what `load` takes."""
        return [self.noise, self.signal, self.weight]

    def load(self, state: list[float]) -> None:
        """Take over the state of another."""
        self.noise, self.signal, self.weight = state
