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

DEPTH = 6  # Halvings of an octave that have a draw of their own.
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
    halved 6 times, each midpoint with a draw. What is left inside a leaf, 1.6 % of an octave, is a Brownian
    bridge of which every element has one random term of the Fourier series: mean and covariance are right
    for any two levels, but over so short a way alone the values are not normal. An interval costs about five
    draws, and the memory of some twenty states.

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
        totals = [_host(target) for target in out]
        walk = _Walk(self, stream, visit, totals)
        for total, upper, lower in zip(totals, walk.value(high), walk.value(low), strict=True):
            torch.sub(upper, lower, out=total)
        for octave in range(_octave(low), _octave(high)):
            walk.add(totals, Node(octave, -1, 0), math.sqrt(_width(octave)))
        walk.finish((low, high))
        for target, total in zip(out, totals, strict=True):
            total.mul_(1.0 / math.sqrt(high - low))
            if total is not target:
                target.copy_(total)
        return rebuild(x, out)


class _Walk:
    """One request: the path's values at levels, from what is held or drawn."""

    def __init__(self, source: BrownianNoise, stream: str, visit: int, like: Leaves) -> None:
        self.keyed, self.held, self.like = source._keyed, source._held, like
        self.stream, self.visit = stream, visit
        owner = (stream, visit, [(part.shape, part.dtype) for part in like])
        if self.held.owner != owner:
            self.held.owner, self.held.values, self.held.free = owner, {}, []
        self.known = self.held.values
        self.needed: dict[Any, Leaves] = {}

    def finish(self, levels: tuple[float, float]) -> None:
        """Hold what was needed, and which terms there are; the memory of the rest is free."""
        for key in (*levels, TERMS):
            if key in self.known:
                self.needed[key] = self.known[key]
        self.held.free += [values for key, values in self.known.items() if key not in self.needed]
        self.held.values = self.needed

    def memory(self) -> Leaves:
        """Memory for a state."""
        free = self.held.free
        return free.pop() if free else [torch.empty_like(part) for part in self.like]

    def value(self, level: float) -> Leaves:
        """The path at a level, less that at the lower end of its octave."""
        if level in self.known:
            return self.known[level]
        node, place, width = _leaf(level)
        scale = math.sqrt(width)
        values = self.needed[level] = [part.mul_(scale) for part in self.bridge(node, place)]
        for node, weight in _weights(level):
            self.add(values, node, weight)
        return values

    def add(self, totals: Leaves, node: Node, weight: float) -> None:
        """Add a node's normal numbers."""
        if node not in self.needed:
            self.needed[node] = self.known[node] if node in self.known else self.draw(node)
        for total, drawn in zip(totals, self.needed[node], strict=True):
            total.add_(drawn, alpha=weight)

    def draw(self, node: Node, uniform: bool = False) -> Leaves:
        """Draw the numbers of a node."""
        values = self.memory()
        key = struct.pack("<qqqq?", *node, self.visit, uniform) + self.stream.encode()
        self.keyed.fill(values, key, uniform)
        return values

    def bridge(self, node: Node, place: float) -> Leaves:
        """The value of a leaf's bridge, which has unit length.

        The k-th term of its series, ``sqrt(2) / (pi k) sin(pi k u)`` times a normal number, has the
        probability ``1 / (k (k + 1))`` and a weight that makes up for it: the covariance is that of all.
        Which term it is is drawn once for each element of the state.
        """
        if node not in self.needed:
            self.needed[node] = self.known[node] if node in self.known else self.draw(node)
        terms = self.terms()
        parts = zip(self.memory(), terms[::2], terms[1::2], self.needed[node], strict=True)
        return [
            torch.mul(k, 0.5 * place, out=part).frac_().mul_(2.0 * math.pi).sin_().mul_(drawn).mul_(weight)
            for part, k, weight, drawn in parts
        ]

    def terms(self) -> Leaves:
        """The number k of each element's term, and its weight, for each tensor."""
        if TERMS not in self.known:
            found = []
            for k in self.draw(TERMS, uniform=True):
                k.neg_().add_(1.0).reciprocal_().floor_()
                found += [k, k.reciprocal().add_(1.0).mul_(2.0).sqrt_().div_(math.pi)]
            self.known[TERMS] = found
        return self.known[TERMS]


def _host(target: Tensor) -> Tensor:
    """Where a sum is made, on the CPU and in float32 at least: the target itself if it will do."""
    dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
    if target.is_cpu and target.dtype == dtype:
        return target
    return torch.empty(target.shape, dtype=dtype, device="cpu")


def _octave(level: float) -> int:
    return max(math.frexp(level)[1] - 1, LOWEST - 1) if level > 0.0 else LOWEST - 1


def _width(octave: int) -> float:
    return 2.0 ** max(octave, LOWEST)


def _within(level: float) -> tuple[int, float, float]:
    """The octave of a level, where in it, from 0 to 1, and its width. Exact: widths are powers of 2."""
    octave = _octave(level)
    width = _width(octave)
    return octave, (level - (0.0 if octave < LOWEST else width)) / width, width


def _weights(level: float) -> Iterator[tuple[Node, float]]:
    """The draws of the octave and of midpoints that the path's value at a level has, and their weights."""
    octave, u, width = _within(level)
    if u:
        yield Node(octave, -1, 0), u * math.sqrt(width)
    for halving in range(DEPTH):
        parts = 2**halving
        place = int(u * parts)
        # The line from 0 at one end of the part to 1 in its middle and back to 0 at the other end.
        if hat := 1.0 - abs(2.0 * (u * parts - place) - 1.0):
            yield Node(octave, halving, place), hat * 0.5 * math.sqrt(width / parts)


def _leaf(level: float) -> tuple[Node, float, float]:
    """The leaf that a level is in, where in it, and its width."""
    octave, u, width = _within(level)
    place = int(u * 2**DEPTH)
    return Node(octave, DEPTH, place), u * 2**DEPTH - place, width / 2**DEPTH
