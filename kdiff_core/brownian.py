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
    from .plans import Combine, Noise, Plan

Interval = tuple[Number, Number]


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
    """Rewrite a plan so that each piece of the overlapping intervals of a step is drawn once."""
    from .plans import Combine, Noise, Plan

    fresh = plan.registers
    visits: dict[tuple[Number, Number, str], int] = {}
    steps = []
    for step in plan.steps:
        requests = [op for op in step.ops if isinstance(op, Noise)]
        drawn: dict[tuple[Number, Number, str], int] = {}
        values: dict[int, Linear] = {}
        ops: list[object] = []
        for op in step.ops:
            if isinstance(op, Combine):
                ops.append(_substituted(op, values))
            elif isinstance(op, Noise):
                values[op.out] = Linear({})
                for a, b, weight in _pieces_of(op, requests):
                    key = (a, b, op.stream)
                    if key not in drawn:
                        drawn[key], fresh = fresh, fresh + 1
                        ops.append(Noise(drawn[key], a, b, op.stream, visits.get(key, 0)))
                        visits[key] = visits.get(key, 0) + 1
                    values[op.out] = values[op.out] + Linear({drawn[key]: weight})
            else:
                ops.append(op)
        steps.append(step._replace(ops=tuple(ops)))  # type: ignore[arg-type]
    return Plan(plan.sampler, plan.path, plan.levels, tuple(steps))


def _pieces_of(request: Noise, requests: list[Noise]) -> list[tuple[Number, Number, Number]]:
    others = [(r.sigma_from, r.sigma_to) for r in requests if r.stream == request.stream]
    return pieces((request.sigma_from, request.sigma_to), others)


def _substituted(op: Combine, values: dict[int, Linear]) -> Combine:
    """Replace noise requests in a combination by their pieces."""
    if not any(r in values for r, _ in op.terms):
        return op
    total = Linear({})
    for register, weight in op.terms:
        total = total + values.get(register, Linear({register: 1.0})) * weight
    return op._replace(terms=tuple(total.terms.items()))
