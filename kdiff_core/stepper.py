"""`Stepper`: a plan driven from outside, one model output at a time.

For hosts that call the model themselves (``scheduler.step``). Results equal the engine's bit for bit: both
drive the same `Machine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .errors import CapabilityError, ParameterError
from .job import Job, checkpoint_of, new_machine, plan_for, resumed_job
from .lookup import get_sampler
from .noise import choose_source
from .plans import Evaluate
from .result import Checkpoint, own
from .state import Leaves, all_finite, check_output, check_state, flatten, flatten_like, rebuild, total_of

if TYPE_CHECKING:
    from .protocols import PathName, Process
    from .sampler import StepSampler


class Stepper:
    """Runs a sampler's plan, one `step` for each model call.

    ::

        stepper = Stepper(sampler, x, sigmas, seed=0)
        while not stepper.done:
            denoised = model(stepper.x, stepper.sigma)
            stepper.step(denoised)
        result = stepper.x

    A state that the host changed, in place or by giving another one to `step`, is taken over: where a step
    begins it replaces the state; at a stage inside a step it is what the model saw, and its difference is
    added to the end of the step. History is not rewritten.

    Attributes:
        plan: What is run.
        done: Whether the run is at its end.
        x: State for the next model call, or the final one; the host's own.
        sigma: Level of the next model call, a float; 0 or the last level at the end.
        index: Number of the step that the next model call belongs to.
        evaluation: Number of the next model call.
    """

    def __init__(
        self,
        sampler: StepSampler | str,
        x: Any,
        sigmas: Any,
        *,
        path: PathName = "ve",
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        process: Process | None = None,
    ) -> None:
        solver: StepSampler = get_sampler(sampler)
        if solver.needs:
            raise CapabilityError(
                f"{solver!r} needs the outputs {sorted(solver.needs)} of a guided denoiser, which a host "
                "that gives one model output at a time does not have"
            )
        traced = solver.plan(sigmas, path, process)
        leaves = check_state(x)
        source = choose_source(seed, noise, leaves[0].shape[0])
        plan = plan_for(traced, source)
        job = Job(
            solver, repr(solver), None, x, leaves, tuple(plan.levels), plan.path, process, plan, source, {}
        )
        self._start(job)

    def _start(self, job: Job) -> None:
        assert job.plan is not None
        self.plan = job.plan
        self._job = job
        job.sigma_tensors(self.plan)
        self._machine = job.machine = job.machine or new_machine(job, self.plan)
        self.index = min(job.finished, job.total - 1)
        self._edit: Leaves | None = None
        self._totals: list[Tensor] = []
        self._to_next_call()

    @classmethod
    def resume(cls, checkpoint: Checkpoint, *, noise: Any = None) -> Stepper:
        """Go on from a checkpoint of a stepper or of ``sampler.run``."""
        stepper = cls.__new__(cls)
        job = resumed_job(None, None, None, None, None, noise, None, checkpoint)
        stepper._start(job)
        return stepper

    def checkpoint(self) -> Checkpoint:
        """The run as it stands, to save or to send elsewhere.

        Raises:
            CapabilityError: A stage was edited, whose difference is still to be added to its step's end.
        """
        if self._edit is not None:
            raise CapabilityError("a stage of this step was edited; take a checkpoint when the step is over")
        return checkpoint_of(self._job)

    @property
    def evaluation(self) -> int:
        """Number of the next model call, from 0."""
        return self._job.evaluations

    @property
    def sigma_tensor(self) -> Tensor:
        """Level of the next model call for each sample, ``(B,)``, in the state's dtype and device."""
        return self._job.level(self.sigma) if self.done else self._job.sigmas[self.evaluation]

    def step(self, denoised: Any, x: Any = None) -> Any:
        """Take the model's output for `x` and go on to the next model call.

        Args:
            denoised: The denoised state, like `x`.
            x: The state that the model was given, if the host made another one than it was handed.

        Returns:
            The state for the next model call, or the final one: `Stepper.x`.

        Raises:
            ParameterError: The run is at its end.
            DenoiserError: An output that is not like the state.
            NonFiniteError: An output with NaN or infinite values.
        """
        if self._call is None:
            raise ParameterError(f"this run is at its end: it has {self.plan.evaluations} model calls")
        op, machine = self._call, self._machine
        output = check_output(denoised, self._job.x, machine.leaves(op.x))
        self._look(output)
        seen = self._edited(x)
        if seen is not None and op.entry:
            machine.take_over(op.x, seen)
        elif seen is not None:
            change = [new - old for new, old in zip(seen, machine.leaves(op.x), strict=True)]
            before = self._edit or [torch.zeros_like(leaf) for leaf in change]
            self._edit = [a + b for a, b in zip(before, change, strict=True)]
        # The host may reuse its output's memory.
        machine.supply(op, [[leaf.clone() for leaf in output]])
        self._job.evaluations += 1
        self._to_next_call()
        return self.x

    def _look(self, output: Leaves) -> None:
        """Refuse an output that is not finite: at once on the CPU, at the end of the run on a device."""
        job = self._job
        job.step = self.index
        if output[0].is_cpu:
            job.refuse_non_finite(output, f"the model output at sigma={self.sigma:.6g}")
            return
        self._totals += [total_of(leaf) for leaf in output]
        if self.evaluation + 1 == self.plan.evaluations and not all_finite(
            torch.stack(self._totals).double()
        ):
            job.refuse_non_finite(self._totals, "the sum of a model output")

    def _edited(self, x: Any) -> Leaves | None:
        """The state as the host changed it, or None; told by identity and torch's version counter."""
        given = flatten_like(self._job.x, self.x if x is None else x)
        if all(mark.unchanged(leaf) for mark, leaf in zip(self._handed, given, strict=True)):
            return None
        return [
            leaf.clone() for leaf in check_output(rebuild(self._job.x, given), self._job.x, self._job.leaves)
        ]

    def _to_next_call(self) -> None:
        """Run up to the next model call, over the ends of steps."""
        machine, call = self._machine, None
        while call is None:
            call = machine.advance(self.plan.ends[self.index])
            if call is None:
                self._end_step()
                self._job.finished = self.index + 1
                if self.index + 1 == self._job.total:
                    break
                self.index += 1
        self._call: Evaluate | None = call
        self.done = call is None
        self.sigma = float(self.plan.levels[-1] if call is None else call.sigma)
        register = self.plan.result if call is None else call.x
        self.x = own(self._job.x, machine.leaves(register))
        self._handed = [Mark.of(leaf) for leaf in flatten(self.x)]

    def _end_step(self) -> None:
        end = self.plan.steps[self.index].end
        if self._edit is not None:
            changed = [a + b for a, b in zip(self._machine.leaves(end), self._edit, strict=True)]
            self._machine.take_over(end, changed)
            self._edit = None


class Mark(NamedTuple):
    """A tensor that was handed out, and what tells whether it was written to since."""

    leaf: Tensor
    version: int
    copy: Tensor | None

    @classmethod
    def of(cls, leaf: Tensor) -> Mark:
        """Mark a tensor; inference tensors have no version counter, so a copy is kept."""
        return cls(leaf, -1, leaf.clone()) if leaf.is_inference() else cls(leaf, leaf._version, None)

    def unchanged(self, leaf: Tensor) -> bool:
        """Whether it is this tensor, as it was."""
        if leaf is not self.leaf:
            return False
        return leaf._version == self.version if self.copy is None else torch.equal(leaf, self.copy)
