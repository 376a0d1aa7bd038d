"""The one numerical kernel of a run: ``sum(weight * state)``, with the least memory traffic.

A combination whose weights sum to 1 (every deterministic step) is a chain of ``lerp``: one kernel fewer
than it has operands, none of them a plain product. Terms that the sum of 1 leaves over (noise) are added
on top. Walking a large state in blocks that stay in the cache was measured too, and wins nothing
(tests/benchmarks/bench_combine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Link(NamedTuple):
    """A link of the chain: what it does (`lerp`, `add`), with which operand, by which weight."""

    kind: str
    operand: int
    weight: float


class Recipe(NamedTuple):
    """A chain: the operand it starts from, that operand's factor, and the links."""

    first: int
    scale: float
    links: tuple[Link, ...]

    @property
    def early(self) -> tuple[int, ...]:
        """Operands that are read before a partial result is written: their memory may take the result."""
        if self.scale != 1.0 or not self.links:
            return (self.first,)
        return (self.first, self.links[0].operand)


def recipe(weights: Sequence[float], extras: frozenset[int] = frozenset()) -> Recipe:
    """Plan the chain for a combination.

    Args:
        weights: One for each operand, finite and not 0.
        extras: Operands that are usually not part of a sum of 1 (noise).

    Returns:
        The chain. Partial sums of its lerps are never smaller than the last, so that nothing cancels.
    """
    everything = range(len(weights))
    core = [i for i in everything if i not in extras]
    for chosen in (list(everything), core):
        size = sum(abs(weights[i]) for i in chosen)
        if len(chosen) > 1 and abs(sum(weights[i] for i in chosen) - 1.0) <= 1e-14 * size:
            # The largest first: each lerp then has a weight of at most 1/2, which float32 keeps exactly.
            order = sorted(chosen, key=lambda i: -weights[i])
            links, total = [], weights[order[0]]
            for i in order[1:]:
                total += weights[i]
                links.append(Link("lerp", i, weights[i] / total))
            links += [Link("add", i, weights[i]) for i in everything if i not in chosen]
            return Recipe(order[0], 1.0, tuple(links))
    first = next((i for i in everything if weights[i] == 1.0), 0)
    rest = tuple(Link("add", i, weights[i]) for i in everything if i != first)
    return Recipe(first, weights[first], rest)


def combine(chain: Recipe, operands: Sequence[Tensor], out: Tensor) -> Tensor:
    """Run a chain into a buffer.

    Args:
        chain: From `recipe`.
        operands: Tensors of one shape, dtype and device.
        out: Where to write; may be the memory of an operand that the chain reads `early`.

    Returns:
        `out`, in which the partial results were.
    """
    first, scale, links = chain
    value = operands[first]
    if scale != 1.0 or not links:
        value = torch.mul(value, scale, out=out)
    for kind, i, weight in links:
        if kind == "lerp":
            value = torch.lerp(value, operands[i], weight, out=out)
        else:
            value = torch.add(value, operands[i], alpha=weight, out=out)
    return out


def combine_recorded(chain: Recipe, operands: Sequence[Tensor]) -> Tensor:
    """Run a chain on fresh memory, so that gradients flow through it."""
    value = operands[chain.first]
    value = value * chain.scale if chain.scale != 1.0 or not chain.links else value
    for kind, i, weight in chain.links:
        value = (
            torch.lerp(value, operands[i], weight)
            if kind == "lerp"
            else torch.add(value, operands[i], alpha=weight)
        )
    return value
