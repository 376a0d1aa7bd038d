"""Attention among the places of a state, and of its places to the tokens of its conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .embedding import zero


def heads_of(channels: int, head_dim: int) -> int:
    """Return the number of heads: one where there are fewer channels than a head has."""
    return max(1, channels // head_dim)


def split(x: Tensor, heads: int) -> Tensor:
    """Return ``(B, heads, N, d)`` of ``(B, N, heads d)``."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Return softmax attention, ``(B, N, heads d)``.

    Args:
        q: Queries, ``(B, heads, N, d)``.
        k: Keys, ``(B, heads, T, d)``.
        v: Values, like the keys.
        mask: Which keys count, ``(B, T)``; every sample has one that does.
        dropout: Share of the weights to drop: 0 but in training.
    """
    seen = None if mask is None else mask[:, None, None, :]
    found = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
    return found.transpose(1, 2).flatten(2)


def rms(x: Tensor) -> Tensor:
    """Divide by the root of the mean square of the last dimension."""
    return functional.rms_norm(x, x.shape[-1:], eps=1e-6)


class SelfAttention(nn.Module):
    """Attention of tokens to one another, ``(B, N, channels)``; 0 at first.

    Args:
        channels: Width of a token.
        head_dim: Width of a head.
        qk_norm: Whether queries and keys are normalised.
        dropout: Share of the weights that training drops.
    """

    def __init__(self, channels: int, head_dim: int, qk_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.qk_norm, self.dropout = heads_of(channels, head_dim), qk_norm, dropout
        # The softmax does not see a bias of the keys, which could never be trained.
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return what is to be added.

        Args:
            x: Tokens.
            rotation: Cosines and sines that queries and keys are turned by, ``(N, d)``.
        """
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))
        if self.qk_norm:
            q, k = rms(q), rms(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        value: Tensor = self.out(attend(q, k, v, dropout=self.dropout if self.training else 0.0))
        return value


class CrossAttention(nn.Module):
    """Attention of tokens, ``(B, N, channels)``, to those of the conditions; 0 at first.

    A learned token is always among those of the conditions, so that there is something to attend to where
    they have none: then nothing else is seen.

    Args:
        channels: Width of a token.
        width: Width of a token of the conditions.
        head_dim: Width of a head.
        qk_norm: Whether queries and keys are normalised.
        dropout: Share of the weights that training drops.
    """

    def __init__(
        self, channels: int, width: int, head_dim: int, qk_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.qk_norm, self.dropout = heads_of(channels, head_dim), qk_norm, dropout
        self.query = nn.Linear(channels, channels, bias=False)
        self.pair = nn.Linear(width, 2 * channels, bias=False)
        self.nothing = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return what is to be added.

        Args:
            x: Tokens that look.
            tokens: Tokens that are looked at, ``(B, T, width)``.
            mask: Which of them count, ``(B, T)``.
        """
        tokens, mask = with_nothing(tokens, mask, self.nothing)
        q = split(self.query(x), self.heads)
        k, v = (split(part, self.heads) for part in self.pair(tokens).chunk(2, dim=2))
        if self.qk_norm:
            q, k = rms(q), rms(k)
        value: Tensor = self.out(attend(q, k, v, mask, self.dropout if self.training else 0.0))
        return value


def with_nothing(tokens: Tensor, mask: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Put the token that stands for nothing before the others; what does not count becomes 0."""
    batch = tokens.shape[0]
    # A masked token gets no weight, but no weight times a NaN is still NaN.
    tokens = torch.where(mask[:, :, None], tokens, torch.zeros((), dtype=tokens.dtype, device=tokens.device))
    tokens = torch.cat([nothing.to(tokens.dtype).expand(batch, 1, -1), tokens], dim=1)
    return tokens, functional.pad(mask, (1, 0), value=True)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of values, ``(.., N, d)``, by angles. Su et al. 2021, arXiv:2104.09864, section 3.2."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class FeedForward(nn.Module):
    """Two layers with a gate between (Shazeer 2020, arXiv:2002.05202, GEGLU)."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = max(8, 2 * channels * expansion // 3)  # as many weights as without the gate
        self.first = nn.Linear(channels, 2 * hidden)
        self.second = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added."""
        value, gate = self.first(x).chunk(2, dim=-1)
        out: Tensor = self.second(value * functional.gelu(gate))
        return out


class SpatialAttention(nn.Module):
    """Attention of the places of a state ``(B, C, *spatial)``, each part added to it, 0 at first.

    Args:
        channels: Channels of the state.
        groups: Groups of its norms.
        head_dim: Channels of a head.
        itself: Whether places attend to one another.
        width: Width of the tokens that they attend to; 0 for none.
        feed_forward: Whether a feed-forward layer follows.
        qk_norm: Whether queries and keys are normalised.
        dropout: Share of the weights that training drops.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        head_dim: int,
        *,
        itself: bool,
        width: int,
        feed_forward: bool,
        qk_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        made: dict[str, nn.Module] = {}
        if itself:
            made["itself"] = SelfAttention(channels, head_dim, qk_norm, dropout)
        if width:
            made["tokens"] = CrossAttention(channels, width, head_dim, qk_norm, dropout)
        if feed_forward:
            made["feed_forward"] = FeedForward(channels)
        self.norms = nn.ModuleDict({name: nn.GroupNorm(groups, channels) for name in made})
        self.parts = nn.ModuleDict(made)
        for part in made.values():
            zero(part.second if isinstance(part, FeedForward) else part.out)  # type: ignore[arg-type]

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return the state with what was found."""
        for name, part in self.parts.items():
            places = self.norms[name](x).flatten(2).transpose(1, 2)
            found = part(places, tokens, mask) if name == "tokens" else part(places)
            x = x + found.transpose(1, 2).reshape(x.shape)
        return x
