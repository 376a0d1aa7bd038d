"""The parts of a UNet: residual blocks that are told of the time, skips, and a layer of all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import SpatialAttention
from .config import UNetConfig
from .embedding import zero
from .resample import conv


def groups_of(channels: int, most: int) -> int:
    """Return the number of groups of a norm: a divisor of the channels, with at least four in a group."""
    return next(g for g in range(max(1, min(most, channels // 4)), 0, -1) if channels % g == 0)


def norm(channels: int, most: int, affine: bool = True) -> nn.GroupNorm:
    """Return a group norm."""
    return nn.GroupNorm(groups_of(channels, most), channels, affine=affine)


def modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``h (1 + scale) + shift``, with a scale and a shift for each channel, ``(B, C)``."""
    beside = (..., *[None] * (h.ndim - 2))
    return torch.addcmul(shift[beside], h, 1 + scale[beside])


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity; the embedding comes in as the config says. The identity at first.

    Args:
        config: What it is made of.
        ins: Channels of the input.
        outs: Channels of the output.
    """

    def __init__(self, config: UNetConfig, ins: int, outs: int) -> None:
        super().__init__()
        self.kind, self.ins, self.outs = config.modulation, ins, outs
        sizes = {"add": outs, "adagn": 2 * outs, "film": 2 * (ins + outs), "ada_zero": 3 * outs}
        self.norm1 = norm(ins, config.groups, affine=self.kind != "film")
        self.conv1 = conv(config.dims, ins, outs)
        self.norm2 = norm(outs, config.groups, affine=self.kind == "add")
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = conv(config.dims, outs, outs)
        self.modulation = nn.Linear(config.width, sizes[self.kind])
        self.shortcut = nn.Identity() if ins == outs else conv(config.dims, ins, outs, 1)
        if self.kind != "add":
            zero(self.modulation)
        if self.kind != "ada_zero":  # there the gate is 0
            zero(self.conv2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return the new state.

        Args:
            x: State, ``(B, ins, *spatial)``.
            embedding: What is known, ``(B, width)``.
        """
        said = self.modulation(embedding)
        h = self.norm1(x)
        if self.kind == "film":
            scale, shift, said = said.split([self.ins, self.ins, 2 * self.outs], dim=1)
            h = modulate(h, scale, shift)
        h = self.conv1(functional.silu(h))
        gate = None
        if self.kind == "add":
            h = self.norm2(h + said[(..., *[None] * (h.ndim - 2))])
        else:
            scale, shift, *gate = said.chunk(said.shape[1] // self.outs, dim=1)
            h = modulate(self.norm2(h), scale, shift)
        h = self.conv2(self.dropout(functional.silu(h)))
        if gate:
            h = h * gate[0][(..., *[None] * (h.ndim - 2))]
        new: Tensor = self.shortcut(x) + h
        return new


class Skip(nn.Module):
    """How the decoder takes up what the encoder kept.

    Args:
        kind: "concat", "add" or "lerp".
        dims: Dimensions.
        own: Channels of the decoder's state.
        kept: Channels of what was kept.

    Attributes:
        channels: Channels of the result.
    """

    def __init__(self, kind: str, dims: int, own: int, kept: int) -> None:
        super().__init__()
        self.kind = kind
        self.channels = own + kept if kind == "concat" else own
        self.match = nn.Identity() if kind == "concat" or own == kept else conv(dims, kept, own, 1)
        if kind == "lerp":
            self.share = nn.Parameter(torch.full((), 0.5))

    def forward(self, h: Tensor, kept: Tensor) -> Tensor:
        """Return both as one state."""
        if self.kind == "concat":
            return torch.cat([h, kept], dim=1)
        kept = self.match(kept)
        return h + kept if self.kind == "add" else h + self.share.to(h.dtype) * (kept - h)


class Layer(nn.Module):
    """A residual block, with what the encoder kept before it and attention after it: what is checkpointed.

    Args:
        config: What it is made of.
        ins: Channels of the input.
        outs: Channels of the output.
        kept: Channels of what the encoder kept; 0 for an encoder's layer.
        itself: Whether places attend to one another.
        tokens: Whether they attend to tokens.
    """

    def __init__(
        self,
        config: UNetConfig,
        ins: int,
        outs: int,
        kept: int = 0,
        itself: bool = False,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        self.skip = Skip(config.skip, config.dims, ins, kept) if kept else None
        self.block = ResidualBlock(config, self.skip.channels if self.skip else ins, outs)
        self.attention = None
        if itself or tokens:
            self.attention = SpatialAttention(
                outs,
                groups_of(outs, config.groups),
                config.head_dim,
                itself=itself,
                width=config.width if tokens else 0,
                feed_forward=config.feed_forward,
                qk_norm=config.qk_norm,
                dropout=config.dropout,
            )

    def forward(
        self, h: Tensor, kept: Tensor | None, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Return the new state."""
        if self.skip is not None and kept is not None:
            h = self.skip(h, kept)
        h = self.block(h, embedding)
        return h if self.attention is None else self.attention(h, tokens, mask)
