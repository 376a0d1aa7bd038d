"""How a run gets its noise: from its source into its buffers, ahead of time on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .brownian import Interval, Visits, pieces
from .errors import NoiseError, StateError
from .plans import Noise
from .state import Leaves, Nest, flatten_like, rebuild, wide

# Requests that are drawn ahead of their use on a GPU.
AHEAD = 2


def drawer(source: Any, x: Any, leaves: Leaves, requests: Sequence[Noise]) -> Any:
    """Return ``draw(request, buffer)`` for a run.

    Args:
        source: Noise source.
        x: State of the run, for its structure.
        leaves: Its tensors.
        requests: All requests in order, so that a GPU's noise can be made while the model runs.
    """
    if source is None:
        return _no_noise
    if leaves[0].device.type == "cuda" and getattr(source, "fills", False):
        return _Prefetch(source, x, leaves, requests)
    return _Direct(source, x, leaves)


def _no_noise(request: Noise, buffer: Leaves | None) -> Leaves:
    raise AssertionError(f"no noise source for {request}")


class _Direct:
    """Draws when asked."""

    def __init__(self, source: Any, x: Any, leaves: Leaves) -> None:
        self.source, self.x, self.leaves = source, x, leaves
        self.fills = getattr(source, "fills", False)

    def __call__(self, request: Noise, buffer: Leaves | None) -> Leaves:
        _, sigma_from, sigma_to, stream, visit = request
        if buffer is not None:
            self.source.noise(self.x, sigma_from, sigma_to, stream, visit, out=buffer)
            return buffer
        drawn, like = self.source.noise(self.x, sigma_from, sigma_to, stream, visit), self.leaves[0]
        if drawn.__class__ is Tensor and len(self.leaves) == 1 and drawn.shape == like.shape:
            return [drawn.to(like)]  # the usual case, first
        return self._checked(drawn)

    def _checked(self, drawn: Any) -> Leaves:
        try:
            found = flatten_like(self.x, drawn)
        except StateError:
            found = []
        shapes = [tuple(leaf.shape) for leaf in found]
        if shapes != [tuple(leaf.shape) for leaf in self.leaves]:
            raise NoiseError(
                f"the noise source {self.source!r:.80} returned {shapes or type(drawn).__name__} for a "
                f"state of shape {[tuple(leaf.shape) for leaf in self.leaves]}; noise is like the state"
            )
        return [new.to(leaf) for new, leaf in zip(found, self.leaves, strict=True)]


class _Prefetch:
    """Makes the next noises in a thread and copies them on a stream of its own, behind the model."""

    def __init__(self, source: Any, x: Any, leaves: Leaves, requests: Sequence[Noise]) -> None:
        self.direct = _Direct(source, x, leaves)
        self.device = leaves[0].device
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.pool = ThreadPoolExecutor(1, "kdiff-noise")
        self.requests = deque(requests)
        self.pending: deque[tuple[Noise, Future[tuple[Leaves, Any]]]] = deque()

    def make(self, request: Noise) -> tuple[Leaves, Any]:
        with torch.cuda.stream(self.stream):
            leaves = self.direct(request, None)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(self.stream)
        return leaves, ready

    def __call__(self, request: Noise, buffer: Leaves | None) -> Leaves:
        while self.requests and self.requests[0] != request and not self.pending:
            self.requests.popleft()  # a resumed run does not ask for the first ones
        while self.requests and len(self.pending) < AHEAD:
            ahead = self.requests.popleft()
            self.pending.append((ahead, self.pool.submit(self.make, ahead)))
        if not self.pending or self.pending[0][0] != request:
            return self.direct(request, None)
        leaves, ready = self.pending.popleft()[1].result()
        current = torch.cuda.current_stream(self.device)
        current.wait_event(ready)
        for leaf in leaves:
            leaf.record_stream(current)
        if not self.requests and not self.pending:
            self.pool.shutdown(wait=False)
        return leaves


class StepNoise:
    """Noise of one eager step: overlapping intervals are composed of disjoint pieces, as in a plan.

    A plan knows all intervals beforehand. Here a piece that was drawn whole and is later asked for in
    part is split where the part ends, given its value.
    """

    def __init__(self, source: Any, x: Any, leaves: Leaves, visits: Visits, step: int) -> None:
        self.direct = _Direct(source, x, leaves)
        self.x = x
        self.brownian = bool(getattr(source, "brownian", False))
        self.visits, self.step = visits, step
        self.drawn: dict[str, dict[Interval, Leaves]] = {}

    def __call__(self, sigma_from: float, sigma_to: float, stream: str) -> Any:
        """Unit noise of an interval, like the state."""
        known = self.drawn.setdefault(stream, {})
        if self.brownian:
            for end in (sigma_from, sigma_to):
                for interval in list(known):  # anew for each end: the first may have made the piece to split
                    self._split(stream, interval, end)
        parts = pieces((sigma_from, sigma_to), known if self.brownian else ())
        found = [(self._piece(stream, (a, b)), weight) for a, b, weight in parts]
        leaves = found[0][0]
        if len(found) > 1:
            leaves = [sum(part[i] * weight for part, weight in found) for i in range(len(leaves))]
        return rebuild(self.x, leaves)

    def _piece(self, stream: str, interval: Interval) -> Leaves:
        known = self.drawn[stream]
        if interval not in known:
            known[interval] = self._fresh(stream, interval)
        return known[interval]

    def _fresh(self, stream: str, interval: Interval) -> Leaves:
        visit = self.visits.of(self.step, *interval, stream)
        return self.direct(Noise(0, *interval, stream, visit), None)

    def _split(self, stream: str, interval: Interval, at: float) -> None:
        """Split a piece: a rotation of its value and fresh noise gives its parts with their joint law."""
        (a, c), known = interval, self.drawn[stream]
        if interval not in known or not min(a, c) < at < max(a, c):
            return
        whole, fresh = known.pop(interval), self._fresh(stream, (a, at))
        near, far = ((a - at) / (a - c)) ** 0.5, ((at - c) / (a - c)) ** 0.5
        known[a, at] = [w * near + f * far for w, f in zip(whole, fresh, strict=True)]
        known[at, c] = [w * far - f * near for w, f in zip(whole, fresh, strict=True)]


class PathNoise:
    """Noise of a run that chooses its steps: increments of one Brownian path, whatever is tried on the way.

    A step is accepted or not by what its noise was. Drawn afresh after a rejection, the noise would be biased
    towards what is accepted; so what was seen of the path stays, and a shorter try is given the path's value
    between two known ones (rejection sampling with memory: Rackauckas and Nie 2017, "Adaptive methods for
    stochastic differential equations via natural embeddings and rejection sampling with memory").

    The path's time is the noise level. Of each stream the values at known levels ahead are held, less that at
    the current level. Each request for a value draws once for the whole batch, needed or not, and is
    numbered, so that the noise of a sample does not depend on its neighbours. A source that is not
    ``brownian`` is a path itself: it is asked for each sample's interval.

    Args:
        source: Noise source.
        x: State of the run, for its structure.
        leaves: Its tensors.
        levels: Current levels, float64 on the host: one for each sample, or one for all.
    """

    def __init__(self, source: Any, x: Any, leaves: Leaves, levels: Tensor) -> None:
        self.direct = _Direct(source, x, leaves)
        self.x, self.leaves = x, leaves
        self.brownian = bool(getattr(source, "brownian", False))
        self.levels = levels
        self.streams: dict[str, _Ahead] = {}

    def begin(self) -> None:
        """Start a try: within one, equal requests have equal answers."""
        for ahead in self.streams.values():
            ahead.asked.clear()

    def __call__(self, start: Tensor, end: Tensor, stream: str) -> Leaves:
        """Unit noise of an interval, given for each sample or for all."""
        if bool((start > self.levels).any() | (start < end).any()):
            raise NoiseError("a try of an adaptive sampler asks for noise that does not lie ahead")
        if not self.brownian:
            return self._by_interval(list(zip(start.tolist(), end.tolist(), strict=True)), stream)
        ahead = self.streams.setdefault(stream, _Ahead(self.levels))
        first, second = self._value(ahead, start, stream), self._value(ahead, end, stream)
        increment = (second - first) / torch.where(start > end, start - end, 1.0).sqrt()
        return [part.to(leaf.dtype) for part, leaf in zip(increment.leaves, self.leaves, strict=True)]

    def advance(self, taken: Tensor, levels: Tensor) -> None:
        """Go on to other levels, where `taken`."""
        for stream, ahead in self.streams.items():
            ahead.advance(taken, levels, self._value(ahead, levels, stream))
        self.levels = torch.where(taken, levels, self.levels)

    def _value(self, ahead: _Ahead, level: Tensor, stream: str) -> Nest:
        """The path's value at a level, less that at the current level."""
        ahead.count += 1
        key = tuple(level.tolist())
        if key not in ahead.asked:
            drawn = self.direct(Noise(0, 0.0, 0.0, f"adaptive {stream}", ahead.count), None)
            ahead.asked[key] = ahead.value(level, Nest(self.x, [leaf.to(wide(leaf)) for leaf in drawn]))
        return ahead.asked[key]

    def _by_interval(self, intervals: Sequence[Interval], stream: str) -> Leaves:
        drawn = {interval: self.direct(Noise(0, *interval, stream, 0), None) for interval in intervals}
        if len(intervals) == 1:
            return drawn[intervals[0]]
        rows = [[leaf[i] for leaf in drawn[interval]] for i, interval in enumerate(intervals)]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]


class _Ahead:
    """What is known of one stream's path ahead of the current levels.

    Arithmetic on levels is that of single numbers, exact to the bit whatever the batch.

    Attributes:
        levels: Known levels ``(B, n)``, falling, the first the current one; ``-inf`` where there are fewer.
        numbers: Of the values there; -1 for none, which is 0.
        values: Values by number.
        asked: Values that the current try has asked for, by level.
        count: Number of requests so far.
    """

    def __init__(self, levels: Tensor) -> None:
        self.levels = levels[:, None]
        self.numbers = torch.full_like(self.levels, -1, dtype=torch.long)
        self.values: dict[int, Nest] = {}
        self.asked: dict[tuple[float, ...], Nest] = {}
        self.count = 0

    def value(self, level: Tensor, fresh: Nest) -> Nest:
        """The value at a level: between two known ones a bridge, behind the last one a new increment."""
        at = (self.levels > level[:, None]).sum(1)
        high, before = self._at((at - 1).clamp(min=0))
        low, after = self._at(at)
        hit, beyond = low == level, low == -torch.inf
        share = torch.where(beyond, 0.0, torch.where(hit, 1.0, (high - level) / (high - low)))
        spread = (high - level) * torch.where(beyond, 1.0, (level - low) / (high - low))
        found = fresh * torch.where(hit, 0.0, spread).sqrt()
        for number, value in self.values.items():
            weight = share * (after == number) + (1.0 - share) * (before == number)
            found = found + value * weight if bool(weight.any()) else found
        self.values[self.count] = found
        self._insert(torch.where(hit, -torch.inf, level), self.count)
        return found

    def advance(self, taken: Tensor, levels: Tensor, value: Nest) -> None:
        """Count from other levels, where `taken`, at which the path has `value`."""
        passed = taken[:, None] & (self.levels >= levels[:, None])
        self.levels = self.levels.masked_fill(passed, -torch.inf)
        self._insert(torch.where(taken, levels, -torch.inf), -1)
        behind = value * taken.double()
        used = set(self.numbers[self.levels > -torch.inf].tolist())
        self.values = {number: old - behind for number, old in self.values.items() if number in used}

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Levels and numbers of a known point of each sample; ``-inf`` and -1 behind the last."""
        pad = torch.nn.functional.pad
        levels, numbers = pad(self.levels, (0, 1), value=-torch.inf), pad(self.numbers, (0, 1), value=-1)
        return levels.gather(1, index[:, None])[:, 0], numbers.gather(1, index[:, None])[:, 0]

    def _insert(self, level: Tensor, number: int) -> None:
        """Put a point in its place for each sample, none where the level is ``-inf``."""
        levels = torch.cat([self.levels, level[:, None]], 1)
        numbers = torch.nn.functional.pad(self.numbers, (0, 1), value=number)
        levels, order = levels.sort(dim=1, descending=True, stable=True)
        most = int((levels > -torch.inf).sum(1).max())
        self.levels, self.numbers = levels[:, :most], numbers.gather(1, order)[:, :most]
