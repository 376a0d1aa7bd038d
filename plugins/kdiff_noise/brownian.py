"""One Brownian path for each sample, the same whatever levels a run visits."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.noise import KeyedNoise
from kdiff_core.state import Leaves, flatten, rebuild

DEPTH = 7  # Halvings of an octave that have a draw of their own.
LOWEST = -20  # Below 2 ** LOWEST everything is one cell.


class Node(NamedTuple):
    """A draw: of an octave the whole (level -1), a midpoint, or what is inside a leaf (level `DEPTH`)."""

    octave: int
    level: int
    place: int


TERMS = Node(0, DEPTH + 1, 0)  # Which terms of the Fourier series the elements have inside leaves.


class _Held(threading.local):
    """Of each thread: what its latest request was made of, most of which the next one needs, and memory."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.values: dict[Any, Leaves] = {}
        self.free: list[Leaves] = []


@frozen
class BrownianNoise:
    """Increments of one Brownian path in the noise level, the same path for any schedule and number of steps.

    With `KeyedNoise` another number of steps is other noise, so another picture. Here the noise of an
    interval is the sum of its parts', however it is cut, and more steps of a stochastic sampler approach one
    picture. Each sample has a path of its own for each stream and visit, a pure function of (seed, sample
    index), whatever the batch and the device. k-diffusion's tree (torchsde; Li et al. 2020, arXiv:2001.01328)
    serves the same purpose.

    The path is made as Levy did: each octave ``[2^k, 2^(k+1)]`` of levels has an increment of its own and is
    halved 7 times, each midpoint with a draw. What is left inside a leaf, 0.8 % of an octave, is a Brownian
    bridge of which every element has one random term of the Fourier series: mean and covariance are right
    for any two levels, but over so short a way alone the values are not normal. An interval costs about six
    draws, and the memory of some thirty states.

    Attributes:
        seed: One seed for the run, or a list with one for each sample; see `KeyedNoise`.
        index: Numbers of the samples in the batch, if they are not 0, 1, ...
    """

    seed: Any = 0
    index: Any = None
    _keyed: KeyedNoise = field(init=False, eq=False, repr=False)
    _held: _Held = field(factory=_Held, init=False, eq=False, repr=False)

    brownian = False  # it gives the increments of overlapping intervals itself
    fills = True

    def __attrs_post_init__(self) -> None:
        keyed = KeyedNoise(self.seed, self.index)
        for name, value in (("_keyed", keyed), ("seed", keyed.seed), ("index", keyed.index)):
            object.__setattr__(self, name, value)  # as converted

    def __reduce__(self) -> tuple[object, tuple[Any, Any]]:
        """Pickle without the draws that are held."""
        return BrownianNoise, (self.seed, self.index)

    def check(self, batch: int) -> None:
        """Raise `NoiseError` unless the seeds and indices fit a batch."""
        self._keyed.check(batch)

    def noise(
        self,
        x: Any,
        sigma_from: float,
        sigma_to: float,
        stream: str = "step",
        visit: int = 0,
        out: Leaves | None = None,
    ) -> Any:
        """Unit noise like `x`; see `kdiff_core.protocols.NoiseSource.noise`. `out` is memory to reuse."""
        low, high = sorted((float(sigma_from), float(sigma_to)))
        if low == high:  # the initial noise
            return self._keyed.noise(x, sigma_from, sigma_to, stream, visit, out)
        out = out or [torch.empty_like(leaf) for leaf in flatten(x)]
        total = [_zeros(target) for target in out]
        asked = _Asked(self, stream, visit, total)
        scale = 1.0 / math.sqrt(high - low)
        for node, weight in _weights(low, high):
            asked.add(asked.drawn(node), weight * scale)
        for sign, level in ((1.0, high), (-1.0, low)):
            node, place, width = _leaf(level)
            asked.add(asked.bridge(node, place), sign * math.sqrt(width) * scale)
        asked.finish()
        for target, part in zip(out, total, strict=True):
            if part is not target:
                target.copy_(part)
        return rebuild(x, out)


class _Asked:
    """One request: what it is made of, from the latest one or drawn."""

    def __init__(self, source: BrownianNoise, stream: str, visit: int, total: Leaves) -> None:
        self.keyed, self.held, self.stream, self.visit = source._keyed, source._held, stream, visit
        self.total = total
        owner = (stream, visit, [(part.shape, part.dtype) for part in total])
        if self.held.owner != owner:
            self.held.owner, self.held.values, self.held.free = owner, {}, []
        self.known = self.held.values
        self.needed: dict[Any, Leaves] = {}

    def finish(self) -> None:
        """Hold what was needed, and the terms; the memory of the rest is free."""
        if TERMS in self.known:
            self.needed[TERMS] = self.known[TERMS]
        self.held.free += [values for key, values in self.known.items() if key not in self.needed]
        self.held.values = self.needed

    def add(self, values: Leaves, weight: float) -> None:
        for part, value in zip(self.total, values, strict=True):
            part.add_(value, alpha=weight)

    def draw(self, node: Node, uniform: bool = False) -> Leaves:
        free = self.held.free
        values = free.pop() if free else [torch.empty_like(part) for part in self.total]
        key = struct.pack("<qqqq?", *node, self.visit, uniform) + self.stream.encode()
        self.keyed.fill(values, key, uniform)
        return values

    def drawn(self, node: Node) -> Leaves:
        """The normal numbers of a node."""
        self.needed[node] = self.known[node] if node in self.known else self.draw(node)
        return self.needed[node]

    def bridge(self, node: Node, place: float) -> Leaves:
        """The value of a leaf's bridge, which has unit length.

        The k-th term of its series, ``sqrt(2) / (pi k) sin(pi k u)`` times a normal number, has the
        probability ``1 / (k (k + 1))`` and a weight that makes up for it: the covariance is that of all.
        Which term it is is drawn once for each element of the state.
        """
        if (node, place) in self.known:
            self.needed[node, place] = self.known[node, place]
            return self.needed[node, place]
        values = self.needed[node, place] = self.draw(node)
        for value, k, weight in zip(values, *self.terms(), strict=True):
            value.mul_(k.mul(place).remainder_(2.0).mul_(math.pi).sin_()).mul_(weight)
        return values

    def terms(self) -> tuple[Leaves, Leaves]:
        """The number k of each element's term, and its weight."""
        if TERMS not in self.known:
            numbers = self.draw(TERMS, uniform=True)
            for k in numbers:
                k.neg_().add_(1.0).reciprocal_().floor_()
            weights = [k.reciprocal().add_(1.0).mul_(2.0).sqrt_().div_(math.pi) for k in numbers]
            self.known = {**self.known, TERMS: [*numbers, *weights]}
        self.needed[TERMS] = self.known[TERMS]
        half = len(self.total)
        return self.needed[TERMS][:half], self.needed[TERMS][half:]


def _zeros(target: Tensor) -> Tensor:
    """Where a sum is made, on the CPU and in float32 at least: the target itself if it will do."""
    dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
    if target.is_cpu and target.dtype == dtype:
        return target.zero_()
    return torch.zeros(target.shape, dtype=dtype, device="cpu")


def _octave(level: float) -> int:
    return max(math.frexp(level)[1] - 1, LOWEST - 1) if level > 0.0 else LOWEST - 1


def _within(octave: int, level: float) -> tuple[float, float]:
    """Where in an octave a level is, from 0 to 1, and the octave's width. Exact: widths are powers of 2."""
    width = 2.0 ** max(octave, LOWEST)
    return min(max((level - (0.0 if octave < LOWEST else width)) / width, 0.0), 1.0), width


def _weights(low: float, high: float) -> Iterator[tuple[Node, float]]:
    """The draws of octaves and midpoints that an interval's increment has, and their weights."""
    for octave in range(_octave(low), _octave(math.nextafter(high, 0.0)) + 1):
        (u, width), (v, _) = _within(octave, low), _within(octave, high)
        yield Node(octave, -1, 0), (v - u) * math.sqrt(width)
        for level in range(DEPTH):
            parts = 2**level
            for place in sorted({min(int(u * parts), parts - 1), min(int(v * parts), parts - 1)}):
                if weight := _hat(v * parts - place) - _hat(u * parts - place):
                    yield Node(octave, level, place), weight * 0.5 * math.sqrt(width / parts)


def _hat(u: float) -> float:
    """The value at `u` of the line from 0 at 0 to 1 at 1/2 and back to 0 at 1; 0 outside."""
    return max(0.0, 1.0 - abs(2.0 * u - 1.0))


def _leaf(level: float) -> tuple[Node, float, float]:
    """The leaf that a level is in, where in it, and its width."""
    octave, parts = _octave(level), 2**DEPTH
    u, width = _within(octave, level)
    place = min(int(u * parts), parts - 1)
    return Node(octave, DEPTH, place), u * parts - place, width / parts
