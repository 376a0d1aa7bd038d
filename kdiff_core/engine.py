"""The one loop over steps: runs a plan, or a sampler that cannot be traced; callbacks, progress, checks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from attrs import define, field
from torch import Tensor

from .draw import drawer
from .errors import CapabilityError, NoiseError, NonFiniteError, ParameterError, TraceError
from .grid import Grid
from .machine import Machine
from .noise import KeyedNoise, noise_from
from .path import as_path
from .plans import Plan
from .result import Checkpoint, Result, StepInfo, own
from .sampler import StepSampler, check_needs
from .state import Leaves, all_finite, check_output, check_state, rebuild, total_of


class StepDone(NamedTuple):
    """What both ways of running yield at the end of a step; `x` and `denoised` only if they are wanted."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    sigma: float
    sigma_hat: float
    sigma_next: float
    x: Leaves | None
    denoised: Leaves | None
    end: Leaves


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
    sigmas: dict[float, Tensor] = field(factory=dict)
    machine: Machine | None = None

    @property
    def total(self) -> int:
        """Number of steps."""
        return len(self.levels) - 1

    def sigma_tensors(self, sigmas: Any) -> None:
        """Put the levels of all evaluations on the device in one transfer."""
        first = self.leaves[0]
        unique = list(dict.fromkeys(float(s) for s in sigmas))
        table = torch.tensor(unique, dtype=torch.float64).to(first.dtype).to(first.device)
        rows = table.unsqueeze(1).expand(-1, first.shape[0]).contiguous().unbind(0)
        self.sigmas = dict(zip(unique, rows, strict=True))

    def evaluate(self, leaves: Leaves, sigma: float, outputs: tuple[str, ...]) -> list[Leaves]:
        """Call the denoiser and check what it returns."""
        if self.checked:
            self.refuse_non_finite(leaves, f"the state at sigma={sigma:.6g}")
        x = rebuild(self.x, leaves)
        level = self.sigmas.get(sigma)
        if level is None:
            level = torch.full(leaves[0].shape[:1], sigma, dtype=leaves[0].dtype, device=leaves[0].device)
        if outputs == ("denoised",):
            found = [check_output(self.denoiser(x, level, **self.cond), x, leaves)]
        else:
            answer = self.denoiser.predict(x, level, **self.cond)
            found = [check_output(getattr(answer, name), x, leaves) for name in outputs]
        self.evaluations += 1
        if self.on_evaluation is not None:
            self.on_evaluation()
        if self.checked:
            for output in found:
                self.refuse_non_finite(output, f"the model output at sigma={sigma:.6g}")
        return found

    def where(self) -> str:
        """The place in the run, for messages."""
        return f"step {self.step} of {self.total} (from sigma={self.levels[self.step]:.6g}) of {self.name}"

    def refuse_non_finite(self, leaves: Leaves, what: str) -> None:
        """Raise `NonFiniteError` naming the place."""
        if not all(all_finite(leaf) for leaf in leaves):
            raise NonFiniteError(
                f"{what} is NaN or infinite in {self.where()}, evaluation {self.evaluations}; the sampler is "
                f"from {_provider(self.sampler)}"
            )


def run(
    sampler: StepSampler,
    denoiser: Any,
    x: Any = None,
    sigmas: Any = None,
    *,
    seed: Any = None,
    noise: Any = None,
    cond: dict[str, Any] | None = None,
    callback: Callable[[StepInfo], Any] | None = None,
    progress: bool = False,
    trajectory: bool = False,
    process: Any = None,
    stop: int | None = None,
    resume: Checkpoint | None = None,
) -> Result:
    """Run a sampler; see `StepSampler.run`."""
    check_needs(sampler, denoiser)
    if resume is None:
        job = _new_job(sampler, denoiser, x, sigmas, seed, noise, cond, process)
    else:
        job = resumed_job(sampler, denoiser, x, sigmas, seed, noise, cond, resume)
    job.wants_states = callback is not None
    if stop is not None:
        _check_stop(stop, job)
    states = [own(job.x, job.leaves)] if trajectory and resume is None else []
    if job.plan is not None:
        job.sigma_tensors(job.plan.evaluation_sigmas)
    with _Progress(progress, job):
        return _loop(job, callback, states if trajectory else None, stop)


def _loop(job: Job, callback: Any, states: list[Any] | None, stop: int | None) -> Result:
    """The loop over steps."""
    info = {
        "sampler": job.name,
        "path": job.path.name,
        "levels": job.levels,
        "noise": job.source,
        "traced": job.plan is not None,
        "why_eager": job.why_eager,
    }
    initial = end = job.leaves
    deferred: list[Tensor] = []
    try:
        for done in _plan_steps(job) if job.plan is not None else _eager_steps(job):
            end = done.end
            _watch(job, end, initial, deferred)
            if states is not None:
                states.append(own(job.x, end))
            if callback is not None:
                callback(_step_info(job, done))
            if stop is not None and done.index + 1 == stop:
                return Result(own(job.x, end), job.evaluations, states, info, checkpoint_of(job))
    except BaseException as error:  # hosts stop a run with exceptions of that kind too
        _annotate(error, job, end, states, info)
        raise
    if deferred and not all_finite(torch.stack(deferred).double()):
        _locate(job, initial, end)
    final = end if job.machine is None or job.machine.owns_result() else [leaf.clone() for leaf in end]
    return Result(rebuild(job.x, final), job.evaluations, states, info)


def _plan_steps(job: Job) -> Iterator[StepDone]:
    """Run a plan step by step."""
    assert job.plan is not None
    machine = job.machine
    if machine is None:
        machine = job.machine = new_machine(job, job.plan)
    until = 0
    for step in job.plan.steps:
        until += len(step.ops)
        if until <= machine.position and step.ops:
            continue
        job.step = step.index
        while (op := machine.advance(until)) is not None:
            machine.supply(op, job.evaluate(machine.leaves(op.x), op.sigma, op.outputs))
        x = denoised = None
        if job.wants_states:
            x = machine.leaves(step.x)
            denoised = None if step.denoised is None else machine.leaves(step.denoised)
        end = machine.leaves(step.end)
        yield StepDone(step.index, step.sigma, step.sigma_hat, step.sigma_next, x, denoised, end)
        machine.release_held()


def new_machine(job: Job, plan: Plan) -> Machine:
    """A machine at the beginning of a plan."""
    draw = drawer(job.source, job.x, job.leaves, plan.noises)
    return Machine(plan, job.leaves, draw, hold=job.wants_states)


def _eager_steps(job: Job) -> Iterator[StepDone]:
    """Run a sampler's steps on tensors."""
    from .eager import EagerContext

    assert job.sampler is not None
    ctx = EagerContext(job)
    x = ctx.wrap(job.leaves)
    for index in range(job.total):
        job.step = index
        sigma, sigma_next = job.levels[index], job.levels[index + 1]
        ctx._begin(index, x)
        x = ctx.advance(job.sampler, x, sigma, sigma_next)
        ctx._finish(lambda value: value)
        hat, first, denoised = ctx.first or (sigma, None, None)
        yield StepDone(index, sigma, hat, sigma_next, first, denoised, ctx.unwrap(x))


def _watch(job: Job, end: Leaves, initial: Leaves, deferred: list[Tensor]) -> None:
    """Look at a step's end state: at once on the CPU; on a device after the run, so that nothing waits."""
    for leaf in end:
        if not leaf.is_cpu:
            deferred.append(total_of(leaf))
        elif not all_finite(leaf):
            _locate(job, initial, end)


def _locate(job: Job, initial: Leaves, end: Leaves) -> None:
    """Repeat a run whose state is not finite, looking at every state and output, and raise at the place."""
    again = Job(
        job.sampler, job.name, job.denoiser, job.x, initial, job.levels, job.path, job.process, job.plan,
        job.source, job.cond, checked=True, sigmas=job.sigmas,
    )  # fmt: skip
    with torch.no_grad():
        for done in _plan_steps(again) if again.plan is not None else _eager_steps(again):
            again.refuse_non_finite(done.end, f"the state at sigma={done.sigma_next:.6g}")
    if not all(all_finite(leaf) for leaf in end):  # otherwise only a sum had overflowed
        raise NonFiniteError(
            f"the state became NaN or infinite in {job.where()}, but not when the run was repeated to find "
            "the place: the denoiser or the noise is not deterministic"
        )


def _step_info(job: Job, done: StepDone) -> StepInfo:
    x, denoised = done.x or done.end, done.denoised
    return StepInfo(
        done.index,
        job.total,
        done.sigma,
        done.sigma_hat,
        done.sigma_next,
        own(job.x, x),
        None if denoised is None else own(job.x, denoised),
        own(job.x, done.end),
        job.evaluations,
    )


def _annotate(
    error: BaseException, job: Job, end: Leaves, states: list[Any] | None, info: dict[str, Any]
) -> None:
    """Say on somebody's exception where the run was, and keep what was computed on it."""
    if not isinstance(error, NonFiniteError):
        error.add_note(f"kdiff: in {job.where()}, after {job.evaluations} evaluations")
    checkpoint = None if job.machine is None else checkpoint_of(job)
    partial = Result(own(job.x, end), job.evaluations, states, info, checkpoint)
    error.partial = partial  # type: ignore[attr-defined]


def _new_job(
    sampler: StepSampler, denoiser: Any, x: Any, sigmas: Any, seed: Any, noise: Any, cond: Any, process: Any
) -> Job:
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
        plan = plan.increments() if getattr(source, "brownian", False) else plan
        if not plan.stochastic:
            source = None
    return Job(
        sampler, repr(sampler), denoiser, x, leaves, levels, path, process, plan, source, cond or {},
        why_eager=None if plan is not None else why,
    )  # fmt: skip


def choose_source(seed: Any, noise: Any, batch: int) -> Any:
    """The noise source of a run.

    Raises:
        NoiseError: Both a seed and a source are given, or the source does not fit the batch.
    """
    if noise is not None and seed is not None:
        raise NoiseError(
            "seed and noise are both given; a noise source has its own seed, so give one of them"
        )
    source = (
        noise_from(noise) if noise is not None else KeyedNoise(secrets.randbits(32) if seed is None else seed)
    )
    check = getattr(source, "check", None)
    if check is not None:
        check(batch)
    return source


def _check_stop(stop: int, job: Job) -> None:
    if job.plan is None:
        raise CapabilityError(
            f"stop={stop}: {job.name} has no plan to stop in the middle of: {job.why_eager}"
        )
    if not 1 <= stop <= job.total:
        raise ParameterError(f"stop={stop}: this run has {job.total} steps; give 1 to {job.total}")


def checkpoint_of(job: Job) -> Checkpoint:
    """A run as it stands, its states copied."""
    machine = job.machine
    assert machine is not None
    live = {
        r: [leaf.detach().clone() for leaf in ls] for r, ls in enumerate(machine.registers) if ls is not None
    }
    noise = None
    if isinstance(job.source, KeyedNoise):
        noise = {"seed": job.source.seed, "index": job.source.index}
    return Checkpoint(machine.plan, machine.position, live, job.x, job.evaluations, noise)


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
    leaves = next(iter(at.registers.values()))
    if seed is None and noise is None and at.noise is not None:
        source: Any = KeyedNoise(**at.noise)
    elif plan.stochastic and seed is None and noise is None:
        raise NoiseError("resume: the checkpoint's noise was not keyed; give the same source again (noise=)")
    else:
        source = choose_source(seed, noise, leaves[0].shape[0])
    levels = tuple(float(v) for v in plan.levels)
    job = Job(
        sampler, plan.sampler, denoiser, at.like, leaves, levels, plan.path, None, plan, source, cond or {}
    )
    job.evaluations = at.evaluations
    job.machine = new_machine(job, plan)
    job.machine.restore(at.position, {r: list(ls) for r, ls in at.registers.items()})
    return job


class _Progress:
    """A bar that counts model calls; nothing if it is not wanted."""

    def __init__(self, wanted: bool, job: Job) -> None:
        self.wanted, self.job = wanted, job
        self.bar: Any = None

    def __enter__(self) -> None:
        if self.wanted:
            from tqdm.auto import tqdm

            total = self.job.plan.evaluations if self.job.plan is not None else None
            label = self.job.name.split("(")[0]
            bar = tqdm(total=total, initial=self.job.evaluations, desc=label, unit="call")
            self.bar, self.job.on_evaluation = bar, bar.update

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _provider(sampler: Any) -> str:
    """Package of a sampler, for messages."""
    return type(sampler).__module__.partition(".")[0]
