"""Tracing: a sampler is run on symbols, and what it does is written down as a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .brownian import Visits
from .context import Prediction, StepContext
from .errors import PlanError, TraceError
from .linear import Linear
from .numerics import Number
from .path import Path
from .plans import Combine, Evaluate, Noise, Op, Plan, PlanStep, read

if TYPE_CHECKING:
    from .protocols import Process
    from .sampler import StepSampler


class _Tracer(StepContext):
    """Runs a sampler on symbols and writes down what it does."""

    def __init__(self, sampler: StepSampler, levels: Sequence[Number], path: Path, process: Any) -> None:
        super().__init__(levels, path, process, sampler.memory)
        self.sampler = sampler
        self.steps: list[list[Op]] = [[] for _ in levels[1:]]
        self.next_register = 1
        self.drawn: dict[tuple[Number, Number, str], Linear] = {}
        self.visits = Visits()
        self.noise_registers: set[int] = set()
        self.start = 0

    def new(self) -> int:
        self.next_register += 1
        return self.next_register - 1

    def register(self, value: Any, step: int) -> int:
        """Register that holds a value; if it is a combination, combine it once, at this point of a step."""
        if not isinstance(value, Linear):
            raise TraceError(
                f"{self.sampler!r}: a step gave a {type(value).__name__} for a state; states come from x, "
                "ctx.denoise and ctx.noise"
            )
        terms = tuple((r, w) for r, w in value.terms.items() if not (isinstance(w, float) and w == 0.0))
        if len(terms) == 1 and isinstance(terms[0][1], float) and terms[0][1] == 1.0:
            return terms[0][0]
        self.check(terms, step)
        out = self.new()
        self.steps[step].append(Combine(out, terms))
        value.replace_by(out)
        return out

    def check(self, terms: tuple[tuple[int, Number], ...], step: int) -> None:
        bad = next((w for _, w in terms if isinstance(w, float) and not math.isfinite(w)), None)
        if terms and bad is None:
            return
        where = (
            f"{self.sampler!r} on the {self.path.name} path: step {step} from "
            f"sigma={float(self.grid[step]):.6g} to {float(self.grid[step + 1]):.6g}"
        )
        if not terms:
            raise PlanError(f"{where} combines nothing into a state; a step returns a state")
        raise PlanError(f"{where} has a weight of {bad}: the sampler cannot take this step")

    def evaluate(self, x: Any, sigma: Number, outputs: tuple[str, ...]) -> list[Linear]:
        register = self.register(x, self.index)
        ops = self.steps[self.index]
        entry = not any(isinstance(op, Evaluate) for op in ops) and self.is_entry(register, ops)
        outs = tuple(self.new() for _ in outputs)
        ops.append(Evaluate(outs, register, sigma, outputs, entry))
        results = [Linear({out: 1.0}) for out in outs]
        self._evaluated(sigma, results[0])
        return results

    def is_entry(self, register: int, ops: list[Op]) -> bool:
        if register == self.start:
            return True
        made = next((op for op in ops if isinstance(op, Combine) and op.out == register), None)
        return made is not None and all(r == self.start or r in self.noise_registers for r, _ in made.terms)

    def denoise(self, x: Any, sigma: Number) -> Any:
        return self.evaluate(x, sigma, ("denoised",))[0]

    def predict(self, x: Any, sigma: Number) -> Prediction:
        return Prediction(*self.evaluate(x, sigma, Prediction._fields))

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        key = (sigma_from, sigma_to, stream)
        if key not in self.drawn:
            out = self.new()
            self.noise_registers.add(out)
            visit = self.visits.of(self.index, sigma_from, sigma_to, stream)
            self.steps[self.index].append(Noise(out, sigma_from, sigma_to, stream, visit))
            self.drawn[key] = Linear({out: 1.0})
        return self.drawn[key]

    def resolver(self, step: int) -> Any:
        """How a later step reads a value kept in `step`: combined there, once, if it is read at all."""

        def resolve(value: Any) -> Any:
            if isinstance(value, Linear) and value.terms:
                self.register(value, step)
            return value

        return resolve


def trace(sampler: StepSampler, levels: Sequence[Number], path: Path, process: Process | None = None) -> Plan:
    """Run a sampler on symbols over the levels it visits.

    Args:
        sampler: The sampler; its `prepare` has been applied.
        levels: Levels, as floats or as numbers that record gradients.
        path: Noise path.
        process: The model's noise process, if known.

    Raises:
        TraceError: The sampler is not linear in the state.
        PlanError: A weight is not finite.
    """
    tracer = _Tracer(sampler, levels, path, process)
    ends = []
    for index in range(len(levels) - 1):
        x = Linear({tracer.start: 1.0})
        tracer.drawn = {}
        tracer._begin(index, x)
        after = tracer.advance(sampler, x, levels[index], levels[index + 1])
        end = tracer.register(after, index)
        tracer._finish(tracer.resolver(index))
        ends.append((tracer.start, end))
        tracer.start = end
    steps = (_step(levels, i, tracer.steps[i], *ends[i]) for i in range(len(ends)))
    return _without_dead(Plan(repr(sampler), path, tuple(levels), tuple(steps)))


def _step(levels: Sequence[Number], index: int, ops: Sequence[Op], start: int, end: int) -> PlanStep:
    """Collect what is known of one step."""
    sigma, sigma_next = levels[index], levels[index + 1]
    first = next((op for op in ops if isinstance(op, Evaluate)), None)
    if first is None:
        return PlanStep(index, sigma, sigma, sigma_next, tuple(ops), start, end, start, None)
    hat = max(sigma, first.sigma)
    return PlanStep(index, sigma, hat, sigma_next, tuple(ops), start, end, first.x, first.outs[0])


def _without_dead(plan: Plan) -> Plan:
    """Drop noise and combinations that nothing reads."""
    needed = {step.end for step in plan.steps}
    kept: set[int] = set()
    ops = plan.ops
    for position in range(len(ops) - 1, -1, -1):
        op = ops[position]
        if isinstance(op, Evaluate) or op.out in needed:
            kept.add(position)
            needed.update(read(op))
    if len(kept) == len(ops):
        return plan
    numbered = iter(range(len(ops)))
    steps = tuple(s._replace(ops=tuple(op for op in s.ops if next(numbered) in kept)) for s in plan.steps)
    return Plan(plan.sampler, plan.path, plan.levels, steps)
