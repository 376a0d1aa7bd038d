"""How a run gets its noise: from its source into its buffers, ahead of time on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .brownian import Interval, pieces
from .errors import NoiseError, StateError
from .plans import Noise
from .state import Leaves, flatten_like, rebuild

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

    def __init__(self, source: Any, x: Any, leaves: Leaves, visits: dict[Any, int]) -> None:
        self.direct = _Direct(source, x, leaves)
        self.x = x
        self.brownian = bool(getattr(source, "brownian", False))
        self.visits = visits
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
        visit = self.visits.get((stream, interval), 0)
        self.visits[stream, interval] = visit + 1
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
