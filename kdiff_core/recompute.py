"""Steps of a plan; and the same with gradients in little memory, what the model computes being redone."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .job import Job
from .machine import Machine
from .plans import Noise
from .state import Leaves


def run_step(job: Job, machine: Machine, until: int) -> None:
    """Run a plan up to a step's end."""
    leaves, advance, supply, evaluate = machine.leaves, machine.advance, machine.supply, job.evaluate
    while (op := advance(until)) is not None:
        supply(op, evaluate(leaves(op.x), op.sigma, op.outputs))
        job.evaluations += 1


def checkpointed_step(job: Job, machine: Machine, until: int) -> None:
    """Run a plan up to a step's end; of the step, keep for gradients what it reads of earlier ones.

    When gradients are asked for the step is run again, from the same states and with the same noise. That
    counts for nothing: not as evaluations, nor in callbacks or the progress.
    """
    if not torch.is_grad_enabled():
        run_step(job, machine, until)
        return
    position = machine.position
    machine.recording = True  # from the start: what a step reads must not be written over
    live: dict[int, Leaves] = {r: list(ls) for r, ls in enumerate(machine.registers) if ls is not None}
    requests = [op for op in machine.plan.ops[position:until] if isinstance(op, Noise)]
    drawn = {op.out: machine.draw(op, None) for op in requests}

    def give(op: Noise, buffer: Leaves | None) -> Leaves:
        return drawn[op.out]

    first = True

    def step(*states: Tensor) -> Any:
        nonlocal first
        if first:
            first, draw, machine.draw = False, machine.draw, give
            try:
                run_step(job, machine, until)
            finally:
                machine.draw = draw
            return None
        again = Machine(machine.plan, job.leaves, give)
        again.restore(position, live)
        again.recording = True
        # The levels are made anew: a model may have written to its own.
        run_step(evolve(job, on_evaluation=None, sigmas=()), again, until)
        return None

    checkpoint(step, *(leaf for leaves in live.values() for leaf in leaves), use_reentrant=False)
