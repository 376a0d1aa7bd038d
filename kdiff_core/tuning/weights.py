"""A plan's weights as parameters: each state as its step's first state and the model's outputs so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from ..errors import CapabilityError
from ..numerics import Number
from ..path import as_path
from ..plans import Combine, Evaluate, Op, Plan, PlanStep
from .lessons import Split

Row = dict[int, Number]  # the weights of a state on the initial state, register 0, and on outputs


def level_shares(grid: Sequence[float], low: float) -> list[float]:
    """Return how a grid shares out the way from its first level to `low` in log sigma, each share above 0.

    Args:
        grid: Levels of which the last is 0.
        low: Lowest level that a tuned grid may have above 0.

    Returns:
        A share for each step but the one to 0, and the share that is left; they sum to 1.
    """
    ends = [*(max(level, low) for level in tuple(grid)[:-1]), low]
    whole = torch.tensor(ends, dtype=torch.float64).log()
    shares = ((whole[:-1] - whole[1:]) / (whole[0] - whole[-1])).clamp_min(1e-3)
    found: list[float] = (shares / shares.sum()).tolist()
    return found


def levels_of(logits: Tensor, high: float, low: float) -> list[Number]:
    """Return the levels of a grid from `high` to 0, the others above `low`, as scalars with a gradient.

    Args:
        logits: ``(n,)``; their softmax are the shares of `level_shares`.
        high: First level.
        low: Below all levels but the last.
    """
    places = logits.softmax(0).cumsum(0)[:-1]
    inner = high * torch.exp(places * torch.log(logits.new_tensor(low / high)))
    return [high, *inner.unbind(), 0.0]


def widened(plan: Plan, history: int | None = None) -> Plan:
    """Return an equal plan in which each state reads its step's first state and many model outputs.

    Every plan without noise can be written so (Shaul et al. 2024, arXiv:2403.01329). Outputs that the sampler
    does not read get the weight 0, which tuning may change. The end of the run becomes a combination too.

    Args:
        plan: Plan without noise.
        history: How many of the newest outputs a state reads beside its own. Default: all.

    Raises:
        CapabilityError: The plan draws noise.
    """
    if plan.stochastic:
        raise CapabilityError(f"{plan.sampler} draws noise; weights are tuned for deterministic samplers")
    rows: dict[int, Row] = {0: {0: 1.0}}
    outputs: list[int] = []
    steps: list[PlanStep] = []
    last = plan.steps[-1]
    end = (
        last.end if any(isinstance(op, Combine) and op.out == last.end for op in last.ops) else plan.registers
    )
    for step in plan.steps:
        ops: list[Op] = []
        for op in (
            *step.ops,
            *([Combine(end, ((last.end, 1.0),))] if step is last and end != last.end else []),
        ):
            if isinstance(op, Evaluate):
                rows |= {out: {out: 1.0} for out in op.outs}
                outputs += op.outs
                ops.append(op)
            elif isinstance(op, Combine):
                rows[op.out] = _sum(op, rows)
                ops.append(
                    Combine(
                        op.out,
                        _terms(
                            rows[op.out],
                            rows[step.start],
                            step.start,
                            outputs[-history:] if history else outputs,
                        ),
                    )
                )
        steps.append(step._replace(ops=tuple(ops), end=end if step is last else step.end))
    return evolve(plan, steps=tuple(steps))


def _sum(op: Combine, rows: Mapping[int, Row]) -> Row:
    found: Row = {}
    for register, weight in op.terms:
        for source, part in rows[register].items():
            found[source] = found.get(source, 0.0) + weight * part
    return found


def _terms(row: Row, first: Row, start: int, wanted: Sequence[int]) -> tuple[tuple[int, Number], ...]:
    """Write a state as its step's first state and outputs."""
    ratio = row.get(0, 0.0) / first[0]
    rest = {r: row.get(r, 0.0) - ratio * first.get(r, 0.0) for r in {**row, **first} if r}
    # Sources that cancel to rounding are not read; those that are wanted are.
    own = {r: w for r, w in rest.items() if r in wanted or abs(float(w)) > 1e-12}
    own |= {r: 0.0 for r in wanted if r not in own}
    return ((start, ratio), *sorted(own.items()))


def free_weights(plan: Plan, keep: bool) -> int:
    """Return how many numbers `shifted` takes for a widened plan."""
    return sum(len(op.terms) - keep for op in plan.ops if isinstance(op, Combine))


def shifted(plan: Plan, deltas: Tensor, keep: bool) -> Plan:
    """Return a widened plan with other weights.

    Args:
        plan: From `widened`.
        deltas: Changes of the weights, one after the other, as many as `free_weights` says.
        keep: Whether to keep what a constant denoiser's output comes to: the weight of the state stays, and
            the changes of those of the outputs sum to 0. Otherwise all weights are free.
    """
    place, steps = 0, []
    for step in plan.steps:
        ops: list[Op] = []
        for op in step.ops:
            if isinstance(op, Combine):
                count = len(op.terms) - keep
                own = deltas[place : place + count]
                place += count
                changes = [deltas.new_zeros(()), *(own - own.mean())] if keep else list(own)
                terms = tuple((r, w + change) for (r, w), change in zip(op.terms, changes, strict=True))
                op = Combine(op.out, terms)  # noqa: PLW2901
            ops.append(op)
        steps.append(step._replace(ops=tuple(ops)))
    return evolve(plan, steps=tuple(steps))


def settled(plan: Plan) -> Plan:
    """Return a plan whose numbers are floats, terms of weight 0 left out."""

    def number(op: Op) -> Op:
        if isinstance(op, Evaluate):
            return op._replace(sigma=float(op.sigma))
        assert isinstance(op, Combine)
        terms = tuple((r, float(w)) for r, w in op.terms)
        return Combine(op.out, tuple(term for term in terms if term[1] != 0) or terms[-1:])

    steps = tuple(
        step._replace(
            sigma=float(step.sigma),
            sigma_hat=float(step.sigma_hat),
            sigma_next=float(step.sigma_next),
            ops=tuple(map(number, step.ops)),
        )
        for step in plan.steps
    )
    return Plan(plan.sampler, as_path(plan.path), tuple(float(v) for v in plan.levels), steps)


def follow(plan: Plan, denoiser: Any, part: Split) -> Tensor:
    """Run a plan without noise, recording gradients with respect to its weights and levels."""
    values: dict[int, Tensor] = {0: part.x}
    for op in plan.ops:
        if isinstance(op, Combine):
            values[op.out] = torch.stack([values[r] * w for r, w in op.terms]).sum(0)
            continue
        assert isinstance(op, Evaluate)
        x = values[op.x]
        sigma = torch.as_tensor(op.sigma, dtype=x.dtype, device=x.device).expand(len(x))
        if op.outputs == ("denoised",):
            values[op.outs[0]] = denoiser(x, sigma, **part.cond)
        else:
            answer = denoiser.predict(x, sigma, **part.cond)
            values |= {out: getattr(answer, name) for out, name in zip(op.outs, op.outputs, strict=True)}
    return values[plan.result]
