"""Plans as text for people and as JSON for files."""

from __future__ import annotations

from typing import Any

from .errors import PlanError
from .path import as_path
from .plans import Combine, Evaluate, Noise, Op, Plan, PlanStep

_VERSION = 1


def plan_table(plan: Plan) -> str:
    """One line for each operation, under a line for each step."""
    lines = [
        f"{plan.sampler} on the {plan.path.name} path: {_count(len(plan.steps), 'step')}, "
        f"{_count(plan.evaluations, 'evaluation')}, {_count(len(plan.noises), 'noise')}, "
        f"{plan.buffers} states alive at most, {plan.operands} operands at most"
    ]
    for step in plan.steps:
        hat = f" (churned to {step.sigma_hat:.6g})" if step.sigma_hat != step.sigma else ""
        lines.append(f"step {step.index}: sigma {step.sigma:.6g}{hat} -> {step.sigma_next:.6g}")
        lines.extend(f"  {_line(op)}" for op in step.ops)
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _line(op: Op) -> str:
    if isinstance(op, Evaluate):
        outs = ", ".join(f"r{r}" for r in op.outs)
        call = "D" if op.outputs == ("denoised",) else "predict"
        return f"{outs} = {call}(r{op.x}, {op.sigma:.6g})"
    if isinstance(op, Noise):
        extra = f", {op.stream}" + (f", visit {op.visit}" if op.visit else "")
        return f"r{op.out} = noise({op.sigma_from:.6g} -> {op.sigma_to:.6g}{extra})"
    terms = " ".join(f"{'-' if w < 0 else '+'} {abs(w):.6g} r{r}" for r, w in op.terms)
    return f"r{op.out} = {terms.removeprefix('+ ')}"


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """JSON-able data; floats are written so that they read back exactly."""
    return {
        "kdiff_plan": _VERSION,
        "sampler": plan.sampler,
        "path": plan.path.name,
        "levels": [float(v) for v in plan.levels],
        "steps": [
            {**step._asdict(), "ops": [[type(op).__name__, *op] for op in step.ops]} for step in plan.steps
        ],
    }


def plan_from_dict(data: dict[str, Any]) -> Plan:
    """Read what `plan_to_dict` wrote.

    Raises:
        PlanError: Not a plan, or one of another version.
    """
    if not isinstance(data, dict) or data.get("kdiff_plan") != _VERSION:
        raise PlanError("this is no plan: 'kdiff_plan' is missing or of another version than 1")
    try:
        steps = tuple(
            PlanStep(**{**step, "ops": tuple(_op(*row) for row in step["ops"])}) for step in data["steps"]
        )
        return Plan(data["sampler"], as_path(data["path"]), tuple(data["levels"]), steps)
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"this plan cannot be read: {error}") from error


def _op(kind: str, *fields: Any) -> Op:
    if kind == "Evaluate":
        outs, x, sigma, outputs, entry = fields
        return Evaluate(tuple(outs), x, sigma, tuple(outputs), entry)
    if kind == "Noise":
        return Noise(*fields)
    if kind == "Combine":
        out, terms = fields
        return Combine(out, tuple((r, w) for r, w in terms))
    raise ValueError(f"no such operation: {kind}")
