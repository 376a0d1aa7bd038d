"""``compile=`` of a run: the denoiser through `torch.compile`, or the whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from .combine import combine_recorded
from .draw import drawer
from .errors import CapabilityError, NonFiniteError, ParameterError
from .job import Job
from .machine import lowered
from .plans import Evaluate, Plan
from .result import Result
from .state import Leaves, all_finite, check_output, rebuild
from .wrapped import Wrapped

BACKEND = "inductor"


def check_compile(compile: Any) -> None:
    """Refuse what ``compile=`` does not know.

    Raises:
        ParameterError: It is not False, True, "model" or "run".
    """
    if compile not in (False, True, "model", "run"):
        raise ParameterError(f"compile={compile!r:.40}: give 'model' (or True), 'run', or False")


class Compiled(Wrapped):
    """A denoiser whose calls go through `torch.compile`, which keeps what it compiled with the model's code.

    Shapes are taken as they are (``dynamic=False``). Outputs are fresh memory: modes of `torch.compile` that
    hand out the same buffers again and again are not used.
    """

    def __init__(self, denoiser: Any) -> None:
        super().__init__(denoiser)
        self._call = _compiled(denoiser)

    def __call__(self, x: Any, sigma: Any, **cond: Any) -> Any:
        """Denoise."""
        return self._call(x, sigma, **cond)

    @property
    def predict(self) -> Any:
        """``predict`` of the denoiser inside, compiled; missing if it has none."""
        return _compiled(self.denoiser.predict)


def _compiled(function: Callable[..., Any], whole: bool = False) -> Callable[..., Any]:
    # Only functions and modules are compiled; of another object its __call__ is.
    known = isinstance(function, (FunctionType, torch.nn.Module)) or hasattr(function, "__func__")
    target = function if known else function.__call__  # type: ignore[operator]
    return torch.compile(target, dynamic=False, fullgraph=whole, backend=BACKEND)


def refuse_beside_compiled_run(**options: Any) -> None:
    """Refuse options that need Python between the steps.

    Raises:
        CapabilityError: One of them is given.
    """
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise CapabilityError(
            f"compile='run': there is no Python between the steps of a compiled run, so {given[0]}= cannot "
            "work; leave it out, or give compile='model'"
        )


def compiled_run(job: Job) -> Result:
    """Run a plan as one compiled function; compiling it, the first time, takes minutes for many steps.

    Raises:
        CapabilityError: The sampler has no plan, or torch cannot trace the model as a whole.
        NonFiniteError: The final state is NaN or infinite.
    """
    plan = job.plan
    if plan is None:
        raise CapabilityError(f"compile='run': {job.name} has no plan: {job.why_eager}; give compile='model'")
    draw = drawer(job.source, job.x, job.leaves, plan.noises)
    noises = [draw(op, None) for op in plan.noises]
    function = plan._once("compiled run", lambda: _compiled(straight_line(plan), whole=True))
    from torch._dynamo.exc import TorchDynamoException

    try:
        end = function(job.denoiser, job.x, job.leaves, job.sigmas, noises, job.cond)
    except TorchDynamoException as error:
        raise CapabilityError(
            f"compile='run': torch cannot trace this model as a whole ({type(error).__name__}, above); "
            "compile='model' compiles what it can"
        ) from error
    check_end(end, job.name)
    return Result(rebuild(job.x, [leaf.clone() for leaf in end]), plan.evaluations, None, job.facts())


def check_end(end: Leaves, name: str) -> None:
    """Look at the final state of a run in one piece.

    Raises:
        NonFiniteError: It is NaN or infinite.
    """
    if not all(all_finite(leaf) for leaf in end):
        raise NonFiniteError(
            f"the final state of {name} is NaN or infinite; a run in one piece does not see where that came "
            "from: run it eagerly, sampler.run(...), which says so"
        )


def straight_line(plan: Plan) -> Callable[..., Leaves]:
    """A plan as a function of tensors alone, for tracing.

    Returns:
        ``f(denoiser, like, leaves, sigmas, noises, cond) -> leaves``: `like` is a state, `sigmas` has the
        levels of each model call and `noises` each noise, in the plan's order.
    """
    code, result, registers_count = lowered(plan).code, plan.result, plan.registers

    def run(
        denoiser: Any,
        like: Any,
        leaves: Leaves,
        sigmas: Sequence[Tensor],
        noises: list[Leaves],
        cond: dict[str, Any],
    ) -> Leaves:
        registers: list[Any] = [leaves] + [None] * registers_count
        calls = draws = 0
        for op, update, ends in code:
            if update is not None:
                operands = zip(*[registers[r] for r in update.sources], strict=True)
                registers[op.out] = [combine_recorded(update.chain, parts) for parts in operands]  # type: ignore[union-attr]
            elif isinstance(op, Evaluate):
                x = rebuild(like, registers[op.x])
                if op.outputs == ("denoised",):
                    outputs = [denoiser(x, sigmas[calls], **cond)]
                else:
                    answer = denoiser.predict(x, sigmas[calls], **cond)
                    outputs = [getattr(answer, name) for name in op.outputs]
                for register, output in zip(op.outs, outputs, strict=True):
                    registers[register] = check_output(output, x, registers[op.x])
                calls += 1
            else:
                registers[op.out] = noises[draws]
                draws += 1
            for register in ends:
                registers[register] = None
        end: Leaves = registers[result]
        return end

    # With code of its own: torch keeps what it compiled with the code, and a few variants of it only.
    return FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)
