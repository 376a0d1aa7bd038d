"""The network and its loss as one module: what is called for a batch, and wrapped to be distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdiff_core.parameterisations import Parameterised
from kdiff_core.training import TrainingLoss

from .batches import Batch


class Objective(nn.Module):
    """The loss of each sample of a batch.

    Args:
        denoiser: Over the network.
        loss: What is made small.
    """

    def __init__(self, denoiser: Parameterised, loss: TrainingLoss) -> None:
        super().__init__()
        self.network: Any = denoiser.network
        self.denoiser, self.loss = denoiser, loss

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of each sample, ``(B,)``, float32."""
        cond: dict[str, Any] = dict(batch.cond)
        if batch.previous is not None:
            cond["previous"] = self._estimate(batch, batch.previous)
        values = self.loss(self.denoiser, batch.x0, batch.sigma, batch.noise, cond)
        return values.float()

    @torch.no_grad()
    def _estimate(self, batch: Batch, chosen: Tensor) -> Tensor:
        """Return what the network takes the data for, and zeros where it is not to be told."""
        shape = (-1, *[1] * (batch.x0.ndim - 1))
        level = self.denoiser.level(batch.sigma)
        x = level.alpha.reshape(shape) * batch.x0 + level.sigma.reshape(shape) * batch.noise
        found = self.denoiser(x.to(batch.x0), batch.sigma, **batch.cond)
        return torch.where(chosen.reshape(shape), found, torch.zeros_like(found))
