"""What is measured between two reports: loss, also by noise level, norms and speed."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Sums since the last report.

    Args:
        density: Of the levels, which says where a part of it begins.
        parts: Number of parts of equal mass by which the loss is told apart.
        device: Where losses are.
    """

    def __init__(self, density: Any, parts: int, device: Any) -> None:
        self.parts, self.device = parts, device
        edges = torch.linspace(0, 1, parts + 1, dtype=torch.float64)
        edges[0], edges[-1] = 1e-6, 1 - 1e-6  # no density need have a finite end
        self.edges = density.sigma(edges).tolist()
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.sums = torch.zeros(2, self.parts, dtype=torch.float64, device=self.device)
        self.norms = 0.0
        self.updates = self.images = 0
        self.began = time.perf_counter()

    def state(self) -> list[Any]:
        """Return what `load` takes."""
        return [self.sums.tolist(), self.norms, self.updates]

    def load(self, state: list[Any]) -> None:
        """Go on from the sums of another."""
        self.restart()
        sums, self.norms, self.updates = state
        self.sums += torch.tensor(sums, dtype=self.sums.dtype, device=self.device)

    def add(self, values: Tensor, u: Tensor) -> None:
        """Take in the losses of samples, ``(B,)``, and their places in the density; nothing waits."""
        part = (u * self.parts).long().clamp(0, self.parts - 1).to(values.device)
        self.sums[0].index_add_(0, part, values.detach().to(self.sums))
        self.sums[1].index_add_(0, part, torch.ones_like(values, dtype=self.sums.dtype))

    def update(self, norm: float, images: int) -> None:
        """Take in the norm of the gradients of an update and its images."""
        self.norms += norm
        self.updates += 1
        self.images += images

    def report(self, gathered: Tensor) -> dict[str, Any]:
        """Return the means, and begin anew.

        Args:
            gathered: `sums`, added up over the processes.
        """
        total, count = (row.tolist() for row in gathered)
        seconds = max(time.perf_counter() - self.began, 1e-9)
        found = {
            "loss": sum(total) / sum(count) if sum(count) else None,
            "images_per_second": self.images / seconds,
            "gradient_norm": self.norms / self.updates if self.updates else None,
            "loss_by_level": [
                {"sigma_low": low, "sigma_high": high, "loss": t / c if c else None, "n": int(c)}
                for low, high, t, c in zip(self.edges, self.edges[1:], total, count, strict=False)
            ],
        }
        self.restart()
        return found
