"""The diffusion transformer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import CrossAttention, FeedForward, SelfAttention, rms
from .conditions import Known
from .config import TransformerConfig
from .embedding import positional, zero
from .network import Network, builder

PARTS = 3  # scale, shift and gate


def places(sizes: torch.Size, device: torch.device) -> Tensor:
    """Return the place of each token along each dimension, ``(d, N)``, in tokens, float32."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def rotation(sizes: torch.Size, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of rotary positions, each ``(N, head_dim / 2)``.

    Each dimension of the data turns its own share of the pairs (Su et al. 2021, arXiv:2104.09864), with
    periods to 100 times 2 pi tokens.
    """
    found = [positional(axis, head_dim // len(sizes), 100.0) for axis in places(sizes, device)]
    cos, sin = zip(*(each.chunk(2, dim=1) for each in found), strict=True)
    return torch.cat(cos, dim=1), torch.cat(sin, dim=1)


def sincos(sizes: torch.Size, channels: int, device: torch.device) -> Tensor:
    """Return fixed positions to add to tokens, ``(N, channels)``, a share for each dimension."""
    axes = places(sizes, device)
    return torch.cat([positional(axis, channels // len(sizes)) for axis in axes], dim=1)


class Block(nn.Module):
    """Attention and a feed-forward layer, each scaled, shifted and gated by the embedding; gates 0 at first.

    Peebles & Xie 2022, arXiv:2212.09748, section 3.2 (adaLN-Zero); attention to tokens stands between.

    Args:
        config: What it is made of.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels, head_dim = config.channels, config.head_dim
        made: dict[str, nn.Module] = {
            "itself": SelfAttention(channels, head_dim, config.qk_norm, config.dropout)
        }
        if config.cross_attention:
            made["tokens"] = CrossAttention(channels, config.width, head_dim, config.qk_norm, config.dropout)
        made["feed_forward"] = FeedForward(channels, config.expansion)
        self.parts = nn.ModuleDict(made)
        self.modulation = nn.Linear(config.width, PARTS * len(made) * channels)
        self.dropout = nn.Dropout(config.dropout)
        zero(self.modulation)

    def forward(
        self,
        h: Tensor,
        embedding: Tensor,
        turns: tuple[Tensor, Tensor] | None,
        tokens: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Return the new tokens, ``(B, N, channels)``."""
        said = self.modulation(embedding)[:, None].chunk(PARTS * len(self.parts), dim=2)
        for index, (name, part) in enumerate(self.parts.items()):
            scale, shift, gate = said[PARTS * index : PARTS * (index + 1)]
            seen = rms(h) * (1 + scale) + shift
            more = {"itself": (turns,), "tokens": (tokens, mask)}.get(name, ())
            h = h + gate * self.dropout(part(seen, *more))
        return h


class Transformer(Network):
    """A transformer on patches. An untrained one returns exactly 0.

    Peebles & Xie 2022, arXiv:2212.09748; with RMS norms, normalised queries and keys and rotary positions,
    as later ones have.

    Args:
        config: What it is made of.
    """

    name: ClassVar[str] = "transformer"
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, config.cross_attention)
        self.enter = nn.Linear(self.ins, config.channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.leave_modulation = nn.Linear(config.width, 2 * config.channels)
        self.leave = nn.Linear(config.channels, self.outs)
        zero(self.leave_modulation)
        zero(self.leave)

    def body(self, h: Tensor, embedding: Tensor, known: Known) -> Tensor:
        """Return the output for patches."""
        sizes, config = h.shape[2:], self.config
        h = self.enter(h.flatten(2).transpose(1, 2))
        turns = None
        if config.positions == "rotary":
            turns = rotation(sizes, config.head_dim, h.device)
        else:
            h = h + sincos(sizes, config.channels, h.device).to(h.dtype)
        for block in self.blocks:
            h = self.run(block, h, embedding, turns, known.tokens, known.mask)
        scale, shift = self.leave_modulation(embedding)[:, None].chunk(2, dim=2)
        out: Tensor = self.leave(rms(h) * (1 + scale) + shift)
        return out.transpose(1, 2).reshape(out.shape[0], -1, *sizes)


transformer = builder(Transformer, TransformerConfig)
