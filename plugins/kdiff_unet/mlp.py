"""A multilayer perceptron, for data that are short vectors."""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen
from torch import Tensor, nn
from torch.nn import functional

from kdiff_core.parameters import one_of, whole

from .conditions import Known
from .config import NetworkConfig
from .embedding import zero
from .network import Network, builder


@frozen(kw_only=True)
class MLPConfig(NetworkConfig):
    """A multilayer perceptron for data without neighbours, ``(B, in_channels)``.

    Attributes:
        dims: 0, the only value.
        channels: Width of a layer.
        depth: Number of residual layers.
    """

    in_channels: int = field(default=2, validator=whole(1))
    dims: int = field(default=0, validator=one_of(0))
    patch_size: int = field(default=1, validator=one_of(1))
    channels: int = field(default=64, validator=whole(1))
    depth: int = field(default=3, validator=whole(1))

    @property
    def width(self) -> int:
        """Width of the embedding: as asked for, else that of a layer."""
        return self.embedding or self.channels


class Perceptron(nn.Module):
    """A residual layer with a scale and a shift from the embedding; the identity at first."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * channels)
        self.first = nn.Linear(channels, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(2 * channels, channels)
        zero(self.second)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Return the new state, ``(B, channels)``."""
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        new = self.norm(h) * (1 + scale) + shift
        new = self.first(new)
        found: Tensor = self.second(self.dropout(functional.silu(new)))
        return h + found


class MLP(Network):
    """Residual layers on a vector, ``(B, in_channels)``. An untrained one returns exactly 0.

    Args:
        config: What it is made of.
    """

    name: ClassVar[str] = "mlp"
    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config, reads_tokens=False)
        width = config.width
        self.enter = nn.Linear(self.ins, config.channels)
        self.layers = nn.ModuleList(
            Perceptron(config.channels, width, config.dropout) for _ in range(config.depth)
        )
        self.leave = nn.Linear(config.channels, self.outs)
        zero(self.leave)

    def body(self, h: Tensor, embedding: Tensor, known: Known) -> Tensor:
        """Return the output."""
        h = self.enter(h)
        for layer in self.layers:
            h = self.run(layer, h, embedding)
        out: Tensor = self.leave(functional.silu(h))
        return out


mlp = builder(MLP, MLPConfig)
