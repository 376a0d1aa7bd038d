"""`Job`: one run, what the caller asked for, checked; new, or going on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from attrs import define, field
from torch import Tensor

from .draw import drawer
from .errors import DenoiserError, NoiseError, NonFiniteError, ParameterError, TraceError
from .grid import Grid
from .lookup import default_registry
from .machine import Machine
from .noise import KeyedNoise, choose_source
from .path import as_path
from .plans import Evaluate, Plan
from .result import Checkpoint
from .sampler import StepSampler
from .state import Leaves, all_finite, check_output, check_state, rebuild


class Seen(NamedTuple):
    """What a callback wants of a step: its first evaluation's level, state and output."""

    sigma_hat: float
    x: Leaves | None
    denoised: Leaves | None


# What both ways of running yield at the end of a step: its number, its last state, and what was seen of it.
Done = tuple[int, Leaves, Seen | None]


@define
class Job:
    """One run: what the caller asked for, checked."""

    sampler: StepSampler | None
    name: str
    denoiser: Any
    x: Any
    leaves: Leaves
    levels: tuple[float, ...]
    path: Any
    process: Any
    plan: Plan | None
    source: Any
    cond: dict[str, Any]
    wants_states: bool = False
    checked: bool = False
    evaluations: int = 0
    why_eager: str | None = None
    on_evaluation: Callable[[], Any] | None = None
    step: int = 0
    sigmas: Sequence[Tensor] = ()
    machine: Machine | None = None
    origin: Checkpoint | None = None
    finished: int = 0
    checkpointed: bool = False
    offload: bool = False
    like: tuple[Any, ...] = ()
    versioned: bool = True
    info: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        first = self.leaves[0]
        self.like = (first.shape, first.dtype, first.device) if self.x is first else ()
        self.versioned = not (first.is_inference() or torch.is_inference_mode_enabled())

    @property
    def total(self) -> int:
        """Number of steps."""
        return len(self.levels) - 1

    def facts(self) -> dict[str, Any]:
        """What a result says of its run."""
        return {
            "sampler": self.name,
            "path": self.path.name,
            "levels": self.levels,
            "noise": self.source,
            "traced": self.plan is not None,
            "why_eager": self.why_eager,
        }

    def sigma_tensors(self, plan: Plan) -> None:
        """Put the levels of all evaluations on the device, in one transfer for all runs of a plan."""
        first = self.leaves[0]
        key = f"sigmas {first.dtype} {first.device} {first.shape[0]}"

        def table() -> Tensor:
            levels = torch.tensor(plan.evaluation_sigmas, dtype=torch.float64, device="cpu")
            levels = levels.to(first.dtype).to(first.device).unsqueeze(1)
            return levels.expand(-1, first.shape[0]).contiguous()

        self.sigmas = plan._once(key, table).clone().unbind(0)  # the run's own: a model may write to it

    def level(self, sigma: float | Tensor) -> Tensor:
        """A level for each sample."""
        first = self.leaves[0]
        if isinstance(sigma, Tensor) and sigma.ndim:
            return sigma.to(first.device, first.dtype, copy=True)
        return torch.full(first.shape[:1], float(sigma), dtype=first.dtype, device=first.device)

    def evaluate(self, leaves: Leaves, sigma: float | Tensor, outputs: tuple[str, ...]) -> list[Leaves]:
        """Call the denoiser and check what it returns."""
        if self.checked:
            self.refuse_non_finite(leaves, f"the state at {_shown(sigma)}")
        x = rebuild(self.x, leaves)
        first = leaves[0]
        version = first._version if self.versioned else 0
        level = self.sigmas[self.evaluations] if self.sigmas else self.level(sigma)
        if outputs == ("denoised",):
            output = self.denoiser(x, level, **self.cond)
            # The usual case, first: a tensor like the state, which is a tensor.
            usual = output.__class__ is Tensor and (output.shape, output.dtype, output.device) == self.like
            found = [[output] if usual else check_output(output, x, leaves)]
        else:
            answer = self.denoiser.predict(x, level, **self.cond)
            found = [check_output(getattr(answer, name), x, leaves) for name in outputs]
        if self.versioned and first._version != version:
            raise DenoiserError(
                "the denoiser changed its input in place; the sampler still needs it: work on x.clone()"
            )
        if self.on_evaluation is not None:
            self.on_evaluation()
        if self.checked:
            for output in found:
                self.refuse_non_finite(output, f"the model output at {_shown(sigma)}")
        return found

    def where(self) -> str:
        """The place in the run, for messages."""
        return f"step {self.step} of {self.total} (from sigma={self.levels[self.step]:.6g}) of {self.name}"

    def refuse_non_finite(self, leaves: Leaves, what: str) -> None:
        """Raise `NonFiniteError` naming the place."""
        if not all(all_finite(leaf) for leaf in leaves):
            raise NonFiniteError(
                f"{what} is NaN or infinite in {self.where()}, after {self.evaluations} evaluations; the "
                f"sampler is from {_provider(self.sampler)}"
            )


def _shown(sigma: float | Tensor) -> str:
    """A level, or those of all samples, for messages."""
    if isinstance(sigma, Tensor) and sigma.ndim:
        return f"sigma={float(sigma.min()):.6g} to {float(sigma.max()):.6g}"
    return f"sigma={float(sigma):.6g}"


def new_machine(job: Job, plan: Plan) -> Machine:
    """A machine at the beginning of a plan."""
    draw = drawer(job.source, job.x, job.leaves, plan.noises)
    return Machine(plan, job.leaves, draw)


def new_job(
    sampler: StepSampler, denoiser: Any, x: Any, sigmas: Any, seed: Any, noise: Any, cond: Any, process: Any
) -> Job:
    """A run from its beginning; everything is checked before the model is called."""
    if sigmas is None or x is None:
        raise ParameterError("x and sigmas: a run needs a state and its noise levels (or resume=)")
    path = as_path(getattr(denoiser, "path", "ve"))
    process = process if process is not None else getattr(denoiser, "process", None)
    grid = Grid.of(sigmas)
    leaves = check_state(x)
    plan, why = None, f"{type(sampler).__name__} declares linear = False"
    if sampler.linear:
        try:
            plan = sampler.plan(grid, path, process)
        except TraceError as error:
            why = str(error)
    source = choose_source(seed, noise, leaves[0].shape[0])
    levels = tuple(sampler.levels(grid, path, process) if plan is None else plan.levels)
    if plan is not None:
        plan = plan_for(plan, source)
        if not plan.stochastic:
            source = None
    return Job(
        sampler, repr(sampler), denoiser, x, leaves, levels, path, process, plan, source, cond or {},
        why_eager=None if plan is not None else why,
    )  # fmt: skip


def plan_for(plan: Plan, source: Any) -> Plan:
    """The plan as a source is asked for its noise: in pieces, if the source's draws are independent."""
    return plan.increments() if getattr(source, "brownian", False) else plan


def checkpoint_of(job: Job, copy: bool = True) -> Checkpoint:
    """A run as it stands; its states are copied, unless the run is over."""
    machine = job.machine
    assert machine is not None
    alive = [r for r, leaves in enumerate(machine.registers) if leaves is not None]
    live = {r: [leaf.detach() for leaf in machine.leaves(r)] for r in alive}
    if copy:
        live = {r: [leaf.clone() for leaf in ls] for r, ls in live.items()}
    else:  # what belongs to the caller or to the model may change
        live = {r: ls if r in machine.owned else [leaf.clone() for leaf in ls] for r, ls in live.items()}
    noise = None
    if isinstance(job.source, KeyedNoise):
        noise = {"seed": job.source.seed, "index": job.source.index}
    calls = sum(isinstance(op, Evaluate) for op in machine.plan.ops[: machine.position])
    return Checkpoint(machine.plan, machine.position, live, job.x, calls, job.finished, noise)


def resumed_job(
    sampler: StepSampler | None,
    denoiser: Any,
    x: Any,
    sigmas: Any,
    seed: Any,
    noise: Any,
    cond: Any,
    at: Checkpoint,
) -> Job:
    """A run that goes on from a checkpoint."""
    if x is not None or sigmas is not None:
        raise ParameterError("x and sigmas come from the checkpoint: give resume= alone")
    plan = at.plan
    if sampler is not None and repr(sampler) != plan.sampler:
        raise ParameterError(f"resume: the checkpoint is of {plan.sampler}, not of {sampler!r}")
    path = as_path(getattr(denoiser, "path", plan.path))
    if path is not plan.path:
        raise ParameterError(
            f"resume: the checkpoint is of a run on the {plan.path.name} path, the denoiser on {path.name}"
        )
    leaves = next(iter(at.registers.values()))
    if seed is None and noise is None and at.noise is not None:
        source: Any = KeyedNoise(**at.noise)
    elif plan.stochastic and seed is None and noise is None:
        raise NoiseError("resume: the checkpoint's noise was not keyed; give the same source again (noise=)")
    else:
        source = choose_source(seed, noise, leaves[0].shape[0])
    if plan_for(plan, source).noises != plan.noises:
        raise NoiseError(
            "resume: the run drew its overlapping noises from a function; give one again (noise=)"
        )
    levels = tuple(float(v) for v in plan.levels)
    job = Job(
        sampler, plan.sampler, denoiser, at.like, leaves, levels, plan.path, None, plan, source, cond or {}
    )
    job.evaluations, job.finished, job.origin = at.evaluations, at.finished, at
    job.machine = new_machine(job, plan)
    job.machine.restore(at.position, {r: list(ls) for r, ls in at.registers.items()})
    return job


def _provider(sampler: Any) -> str:
    """Distribution and version that a sampler comes from, or its package, for messages."""
    module = type(sampler).__module__
    for entry in default_registry().list("sampler", hosts=True):
        factory = entry.factory
        place = factory.partition(":")[0] if isinstance(factory, str) else getattr(factory, "__module__", "")
        if place == module:
            return f"{entry.plugin.distribution} {entry.plugin.version}"
    return module.partition(".")[0]
