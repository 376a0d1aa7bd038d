"""What samplers say of themselves; a sampler with a bug costs its own line only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import TraceError
from ..lookup import get_sampler
from ..sampler import StepSampler

if TYPE_CHECKING:
    from ..registry import ResolvedEntry

_STEPS = 10


def calls_per_step(sampler: Any) -> float | None:
    """Return the model calls of a step, from the plan on ten steps without the last, which goes to 0.

    Returns:
        None if the sampler cannot be traced.

    Raises:
        Exception: Whatever a bug in the sampler's step raises.
    """
    # Where all steps are alike, one tells.
    alike = not sampler.memory and type(sampler).prepare is StepSampler.prepare
    levels = [10.0 * 0.6**i for i in range(2 if alike else _STEPS)]
    try:
        steps = [step for step in sampler.plan([*levels, 0.0]).steps if step.sigma_next > 0]
    except TraceError:
        return None
    calls = sum(type(op).__name__ == "Evaluate" for step in steps for op in step.ops)
    return round(calls / max(1, len(steps)), 2)


def sampler_facts(entry: ResolvedEntry) -> dict[str, Any]:
    """Return order, memory, stochastic and calls_per_step; and "error", what hides the rest of them."""
    facts: dict[str, Any] = dict.fromkeys(("order", "memory", "stochastic", "calls_per_step"))
    facts["error"] = ""
    try:
        sampler = get_sampler(entry.id)
        facts |= {key: getattr(sampler, key) for key in ("order", "memory", "stochastic")}
        facts["calls_per_step"] = calls_per_step(sampler)
    except Exception as error:
        facts["error"] = described(error)
    return facts


def described(error: Exception) -> str:
    """Return an error in a line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
