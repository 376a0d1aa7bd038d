"""Where tiles lie, what they weigh, and how they are cut and put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A tile in one dimension.

    Attributes:
        start: Where it starts.
        weights: Its share of each place, ``(length,)``, float64.
    """

    start: int
    weights: Tensor


# A tile in all spatial dimensions.
Tile = tuple[Span, ...]


class Axis(NamedTuple):
    """How one dimension is cut.

    Attributes:
        size: Its size.
        tail: How far its last tile goes over the end, where it is circular.
        spans: The tiles, whose weights at each place sum to 1.
    """

    size: int
    tail: int
    spans: tuple[Span, ...]


def axis(size: int, tile: int | None, overlap: int, circular: bool) -> Axis:
    """Cut a dimension in as few tiles as can be, at even distances.

    Args:
        size: Its size.
        tile: Length of a tile; None: it is not cut.
        overlap: How much neighbours share at least.
        circular: Whether its end meets its beginning.
    """
    if tile is None or size <= tile:
        return Axis(size, 0, (Span(0, torch.ones(size, dtype=torch.float64)),))
    if circular:
        count = math.ceil(size / (tile - overlap))
        starts = [i * size // count for i in range(count)]
    else:
        count = math.ceil((size - overlap) / (tile - overlap))
        starts = [i * (size - tile) // (count - 1) for i in range(count)]
    window = torch.sin((torch.arange(tile, dtype=torch.float64) + 0.5) * (math.pi / tile)) ** 2
    places = [(torch.arange(tile) + start) % size for start in starts]
    total = torch.zeros(size, dtype=torch.float64)
    for place in places:
        total[place] += window
    spans = (Span(start, window / total[place]) for start, place in zip(starts, places, strict=True))
    return Axis(size, max(0, starts[-1] + tile - size), tuple(spans))


def cut(x: Tensor, axes: Sequence[Axis], tile: Tile) -> Tensor:
    """Return a tile of a tensor ``(B, C, ...)`` whose sizes are those of the axes or whole multiples."""
    for dim, (each, span) in enumerate(zip(axes, tile, strict=True), 2):
        scale = x.shape[dim] // each.size
        start, length = span.start * scale, len(span.weights) * scale
        over = max(0, start + length - x.shape[dim])
        part = x.narrow(dim, start, length - over)
        x = torch.cat([part, x.narrow(dim, 0, over)], dim) if over else part
    return x


def add(total: Tensor, part: Tensor, tile: Tile) -> None:
    """Add a tile times its weights to a total that is longer than the state by the tails."""
    weighted = part.to(total)
    for dim, span in enumerate(tile, 2):
        total = total.narrow(dim, span.start, len(span.weights))
        weighted = weighted * span.weights.to(total).reshape(-1, *[1] * (part.ndim - dim - 1))
    total += weighted


def folded(total: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Bring the tails of a total back to where they belong."""
    for dim, each in enumerate(axes, 2):
        if each.tail:
            total.narrow(dim, 0, each.tail).add_(total.narrow(dim, each.size, each.tail))
            total = total.narrow(dim, 0, each.size)
    return total
