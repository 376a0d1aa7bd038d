"""Overlapping noise intervals as increments of one Brownian path.

A two-stage stochastic step asks for noise up to its stage and for noise of the whole step. Drawn
independently, the two would give the wrong output variance (dpmpp_sde: half of it at ten steps). They
are increments of one path whose time is the noise level itself, as in torchsde's tree in k-diffusion:
over ``[a, c]`` cut at ``b``, ``noise(a, c) = sqrt((a-b)/(a-c)) noise(a, b) + sqrt((b-c)/(a-c)) noise(b, c)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from .linear import Linear
from .numerics import Number, sqrt

if TYPE_CHECKING:
    from .plans import Combine, Noise, Op, Plan

Interval = tuple[Number, Number]
Key = tuple[Number, Number, str, int]


class Visits:
    """How often a run has been where a step asks for noise, as after a restart: there its noise is another.

    Of the requests of a step in one stream the first decides for all, which are of one path.
    """

    def __init__(self) -> None:
        self.steps: dict[str, list[tuple[int, Number, Number, int]]] = {}
        self.lowest: dict[str, Number] = {}

    def of(self, step: int, sigma_from: Number, sigma_to: Number, stream: str) -> int:
        """Return the visit of a request, and note it."""
        low, high, visit = min(sigma_from, sigma_to), max(sigma_from, sigma_to), 0
        steps = self.steps.setdefault(stream, [])
        if steps and steps[-1][0] == step:
            _, below, above, visit = steps[-1]
            steps[-1] = step, min(low, below), max(high, above), visit
            return visit
        if steps:  # most runs go down: what lies below all that earlier steps asked for is new
            self.lowest[stream] = min(self.lowest.get(stream, steps[-1][1]), steps[-1][1])
            if high > self.lowest[stream]:
                before = [v for _, below, above, v in steps if below < high and low < above]
                visit = max(before, default=-1) + 1
        steps.append((step, low, high, visit))
        return visit


def pieces(interval: Interval, others: Iterable[Interval]) -> list[tuple[Number, Number, Number]]:
    """Cut an interval at the ends of others that lie inside it.

    Args:
        interval: From and to; rising (churn) or falling.
        others: Intervals of the same stream.

    Returns:
        ``(from, to, weight)`` of each piece in order; the squares of the weights sum to 1.
    """
    start, end = interval
    low, high = min(start, end), max(start, end)
    same_way = [o for o in others if (o[0] > o[1]) == (start > end)]
    cuts = sorted({e for o in same_way for e in o if low < e < high}, reverse=start > end)
    ends = [start, *cuts, end]
    return [(a, b, sqrt((a - b) / (start - end))) for a, b in pairwise(ends)]


def split_overlaps(plan: Plan) -> Plan:
    """Rewrite a plan so that each piece of the overlapping intervals of a step is drawn once.

    A request that overlaps no other stays as it is. One that is cut becomes a combination of its pieces
    wherever it is read.
    """
    from .plans import Evaluate, Plan

    whole = {op.x for op in plan.ops if isinstance(op, Evaluate)}
    whole |= {register for step in plan.steps for register in (step.start, step.end, step.x)}
    splitter = _Splitter(plan.registers, whole)
    steps = tuple(step._replace(ops=splitter.split(step.ops)) for step in plan.steps)
    return Plan(plan.sampler, plan.path, plan.levels, steps)


class _Splitter:
    """Goes through the steps of a plan; `whole` are the registers that something else than a sum reads."""

    def __init__(self, fresh: int, whole: set[int]) -> None:
        self.fresh = fresh
        self.whole = whole
        self.values: dict[int, Linear] = {}

    def split(self, ops: tuple[Op, ...]) -> tuple[Op, ...]:
        from .plans import Combine, Noise

        requests = [op for op in ops if isinstance(op, Noise)]
        drawn: dict[Key, int] = {}
        result: list[Op] = []
        for op in ops:
            if isinstance(op, Noise):
                result += self.draws(op, requests, drawn)
            else:
                result.append(self.substituted(op) if isinstance(op, Combine) else op)
        return tuple(result)

    def draws(self, request: Noise, requests: list[Noise], drawn: dict[Key, int]) -> list[Op]:
        """The pieces of a request that are not drawn yet; its value is noted, or combined if it must be."""
        from .plans import Combine, Noise

        others = [(r.sigma_from, r.sigma_to) for r in requests if r.stream == request.stream]
        cuts = pieces((request.sigma_from, request.sigma_to), others)
        ops: list[Op] = []
        total = Linear({})
        for a, b, weight in cuts:
            key = (a, b, request.stream, request.visit)
            if key not in drawn:
                drawn[key] = request.out if len(cuts) == 1 else self.new()
                ops.append(Noise(drawn[key], *key))
            total = total + Linear({drawn[key]: weight})
        if request.out in total.terms:
            return ops
        if request.out in self.whole:
            return [*ops, Combine(request.out, tuple(total.terms.items()))]
        self.values[request.out] = total
        return ops

    def new(self) -> int:
        self.fresh += 1
        return self.fresh - 1

    def substituted(self, op: Combine) -> Combine:
        """Replace noise requests in a combination by their pieces."""
        if not any(r in self.values for r, _ in op.terms):
            return op
        total = Linear({})
        for register, weight in op.terms:
            total = total + self.values.get(register, Linear({register: 1.0})) * weight
        return op._replace(terms=tuple(total.terms.items()))
