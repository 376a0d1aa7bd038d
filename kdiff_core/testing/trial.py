"""What the laws of networks are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Trial(NamedTuple):
    """A network, what it is called with, and what stands for nothing.

    Attributes:
        build: Makes the network anew.
        x: State, ``(B, C, *spatial)``, of two samples or more.
        time: Times, ``(B,)``.
        cond: Conditions by name, none of them null.
        null: Conditions by name, all of them null.
    """

    build: Callable[[], Any]
    x: Tensor
    time: Tensor
    cond: dict[str, Tensor]
    null: dict[str, Tensor]

    def network(self) -> Any:
        """Return a network with weights that are not 0 anywhere, in eval mode; the same each time."""
        network = self.untrained()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
        return network.eval()

    def untrained(self) -> Any:
        """Return a new network; the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().to(self.x.device)

    def output(self, network: Any, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the network's output, without a gradient."""
        with torch.no_grad():
            found: Tensor = network(self.x, self.time, **(self.cond if cond is None else cond))
        return found
