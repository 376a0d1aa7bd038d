"""Plans for hosts that call the model themselves: begun at any model call, with the host's noise or none.

Such a host makes the first state itself and tells the model the level of the first call, before a sampler
can do anything. So a run begins with its first model call. Noise that a sampler adds before it (churn) is
left to the host: it starts from noise of the higher level.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.grid import Grid
from kdiff_core.noise import GeneratorNoise, KeyedNoise
from kdiff_core.plans import Evaluate, Op, Plan, read, written
from kdiff_core.protocols import Process
from kdiff_core.result import Checkpoint
from kdiff_core.sampler import StepSampler
from kdiff_core.state import check_state
from kdiff_core.stepper import Stepper

_SEED = 8  # bytes


class HostNoise:
    """The noise of torch generators while a host hands them over, else keyed noise.

    Attributes:
        keyed: Noise for a host without generators.
        generators: What the host handed over with its last call.
    """

    brownian = True
    fills = False

    def __init__(self, keyed: KeyedNoise) -> None:
        self.keyed = keyed
        self.generators: tuple[torch.Generator, ...] = ()

    def use(self, generator: Any) -> None:
        """Draw from a generator, a list with one for each sample, or with None from the keyed noise.

        Raises:
            ParameterError: It is something else.
        """
        found = () if generator is None else generator
        found = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        if not all(isinstance(each, torch.Generator) for each in found):
            raise ParameterError(
                f"generator={generator!r:.60}: give a torch.Generator, or one for each sample"
            )
        self.generators = found

    def noise(self, x: Any, sigma_from: float, sigma_to: float, stream: str = "step", visit: int = 0) -> Any:
        """Unit noise like `x`."""
        source = GeneratorNoise(self.generators) if self.generators else self.keyed
        return source.noise(x, sigma_from, sigma_to, stream, visit)


def seeds_of(sample: Tensor) -> tuple[int, ...]:
    """Return a seed for each sample, a hash of its first state: whoever repeats that repeats the noise."""
    rows = sample.detach().to("cpu", torch.float32).contiguous()
    hashes = (hashlib.sha256(row.numpy().tobytes()).digest() for row in rows)
    return tuple(int.from_bytes(digest[:_SEED], "big") for digest in hashes)


def check_driven(sampler: StepSampler) -> None:
    """Refuse a sampler that no host can drive from outside.

    Raises:
        CapabilityError: It chooses its steps as it goes, or needs more than the guided output.
    """
    if not sampler.linear or sampler.needs:
        why = "needs more than the guided output" if sampler.needs else "has no plan"
        raise CapabilityError(f"{sampler!r} {why}: no pipeline can drive it; use another sampler")


@frozen
class Planned:
    """What a host is going to run, from its first model call or from a later one.

    Attributes:
        sampler: The sampler.
        grid: The levels asked for.
        process: The model's process.
        plan: What the sampler does on the grid, its noise as increments of one path.
    """

    sampler: StepSampler
    grid: Grid
    process: Process
    plan: Plan

    @classmethod
    def of(cls, sampler: StepSampler, grid: Grid, process: Process) -> Planned:
        """Plan a run."""
        return cls(sampler, grid, process, sampler.plan(grid, process.path, process).increments())

    @property
    def calls_a_step(self) -> int:
        """How many model calls most steps make: what hosts call a sampler's order."""
        counts = Counter(len(_calls(self.plan, k)) for k in range(len(self.plan.steps)))
        return max(counts, key=lambda calls: (counts[calls], calls))

    def tail(self, call: int) -> tuple[Plan, int]:
        """Return the plan of a run that begins with a model call, and the number of that call in it.

        Where later calls need what came before, the levels that are left are planned afresh: without history.

        Raises:
            ParameterError: There is no such call.
            CapabilityError: It is inside a step, or the sampler would begin there with other model calls
                than those planned, at which the host will call the model.
        """
        plan = self.plan
        if not 0 <= call < plan.evaluations:
            raise ParameterError(f"model call {call}: this run has the calls 0 to {plan.evaluations - 1}")
        (step, first), usual = _place(plan, call), self.calls_a_step
        even = all(len(_calls(plan, k)) == usual for k in range(step))
        if call and not (first and even):
            raise CapabilityError(
                f"{plan.sampler} cannot begin with model call {call}: it is inside a step, or the steps "
                "before it have different numbers of calls; use another strength or number of steps"
            )
        if begun := _begun(plan, step):
            return begun, call
        level = plan.steps[step].sigma
        if level in self.grid[:-1]:
            again = Planned.of(self.sampler, self.grid[self.grid.index(level) :], self.process).plan
            left = plan.evaluation_sigmas[call:]
            same = len(left) == again.evaluations and all(map(math.isclose, left, again.evaluation_sigmas))
            if same and (begun := _begun(again, 0)):
                return begun, 0
        raise CapabilityError(
            f"{plan.sampler} begins a run with other model calls than it goes on with, so a host that has "
            f"planned its calls cannot begin at call {call}; use another sampler for image to image"
        )

    def call_told(self, told: Sequence[float], timestep: float) -> int:
        """Return the first model call with a timestep, of those `told`, that a run can begin with.

        Raises:
            ParameterError: There is none.
        """
        for call in (call for call, known in enumerate(told) if known == timestep):
            with suppress(CapabilityError):
                self.tail(call)
                return call
        raise ParameterError(
            f"timestep={timestep}: no step of this run begins there; pass an element of scheduler.timesteps, "
            "or call set_begin_index"
        )


def _calls(plan: Plan, step: int) -> list[Evaluate]:
    return [op for op in plan.steps[step].ops if isinstance(op, Evaluate)]


def _place(plan: Plan, call: int) -> tuple[int, bool]:
    """Return the step of a model call, and whether it is the first of its step."""
    before = 0
    for k in range(len(plan.steps)):
        after = before + len(_calls(plan, k))
        if call < after:
            return k, call == before
        before = after
    raise AssertionError(f"{plan.sampler} has no model call {call}")


def _begun(plan: Plan, k: int) -> Plan | None:
    """Return a plan whose step `k` begins with the state of its first model call; None if it needs more.

    What made that state is left out; noise that is drawn ahead of the call and used after it stays.
    """
    step = plan.steps[k]
    place = next(i for i, op in enumerate(step.ops) if isinstance(op, Evaluate))
    ahead, x = step.ops[:place], read(step.ops[place])[0]
    missing: set[int] = set()
    known = {x}
    for op in (*step.ops[place:], *(op for later in plan.steps[k + 1 :] for op in later.ops)):
        missing.update(set(read(op)) - known)
        known.update(written(op))
    kept, made = _needed(ahead, missing), _needed(ahead, {x})
    if set(kept) & set(made) or missing - {out for op in kept for out in written(op)}:
        return None
    if any(not set(read(op)) <= {out for other in kept for out in written(other)} for op in kept):
        return None
    if tuple(kept) == ahead and x == step.start:
        return plan
    changed = step._replace(ops=(*kept, *step.ops[place:]), start=x)
    return evolve(plan, steps=(*plan.steps[:k], changed, *plan.steps[k + 1 :]))


def _needed(ops: Sequence[Op], registers: set[int]) -> list[Op]:
    """Return the operations that registers are computed by, in order."""
    wanted, found = set(registers), list[Op]()
    for op in reversed(ops):
        if wanted.intersection(written(op)):
            found.insert(0, op)
            wanted.update(read(op))
    return found


def begin(plan: Plan, call: int, x: Tensor, noise: Any) -> Stepper:
    """Return a stepper that waits for the output of a model call.

    Args:
        plan: What to run, as `Planned.tail` returns it.
        call: Number of the model call.
        x: The state that the model is given.
        noise: Noise source, whose draws for disjoint intervals are independent.

    Raises:
        StateError: No sampler can start from `x`.
    """
    leaves, (step, _) = check_state(x), _place(plan, call)
    position = plan.ends[step - 1] if step else 0
    at = Checkpoint(plan, position, {plan.steps[step].start: leaves}, x, call, step)
    return Stepper.resume(at, noise=noise)
