"""The one loop over steps: runs a plan, or a sampler that cannot be traced; callbacks, progress, checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .chunking import Chunked
from .compiling import Compiled, check_compile, compiled_run, refuse_beside_compiled_run
from .errors import CapabilityError, NonFiniteError, ParameterError
from .job import Done, Job, Seen, checkpoint_of, new_job, new_machine, resumed_job
from .known_levels import knowing_levels
from .offload import parking_for
from .recompute import checkpointed_step, run_step
from .result import Checkpoint, Result, StepInfo, own
from .sampler import StepSampler, check_needs
from .state import Leaves, all_finite, rebuild, total_of

# On how many steps the run looks whether its state is finite: NaN stays in a state, and a run that has met
# it is repeated to find the place. With a callback, which would see such a state, it looks on each.
LOOK_EVERY = 8


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
    checkpoint_gradients: bool = False,
    chunk: int | Literal["auto"] | None = None,
    offload: bool = False,
    compile: bool | str = False,
) -> Result:
    """Run a sampler; see `StepSampler.run`."""
    check_needs(sampler, denoiser)
    if compile == "run":
        refuse_beside_compiled_run(
            callback=callback, progress=progress, trajectory=trajectory, stop=stop, resume=resume,
            checkpoint_gradients=checkpoint_gradients, chunk=chunk, offload=offload,
        )  # fmt: skip
    denoiser = _wrapped(denoiser, chunk, compile)
    if callback is not None and not callable(callback):
        raise ParameterError(f"callback={callback!r:.40}: a callback is called with a StepInfo")
    if cond is not None and not isinstance(cond, Mapping):
        raise ParameterError(f"cond={cond!r:.40}: give a dict, the keyword arguments of the denoiser")
    if resume is not None and not isinstance(resume, Checkpoint):
        raise ParameterError(f"resume={resume!r:.40}: give a Checkpoint; Checkpoint.load reads one")
    if resume is None:
        job = new_job(sampler, denoiser, x, sigmas, seed, noise, cond, process)
    else:
        job = resumed_job(sampler, denoiser, x, sigmas, seed, noise, cond, resume)
    job.wants_states, job.checkpointed = callback is not None, checkpoint_gradients
    job.offload = offload
    _check_plan(job)
    if stop is not None:
        _check_stop(stop, job)
    states = [own(job.x, job.leaves)] if trajectory and resume is None else []
    if job.plan is not None:
        job.sigma_tensors(job.plan)
    if compile == "run":
        return compiled_run(job)
    with _Progress(progress, job), knowing_levels(job):
        result = _loop(job, callback, states if trajectory else None, stop)
    if isinstance(denoiser, Chunked):
        result.info["chunk"] = denoiser.size
    return result


def _loop(job: Job, callback: Any, states: list[Any] | None, stop: int | None) -> Result:
    """The loop over steps."""
    info = job.info
    info |= job.facts()
    initial = job.leaves
    end = initial if job.machine is None else job.machine.newest(job.finished)
    deferred: list[Tensor] = []
    total, every = job.total, 1 if callback is not None else LOOK_EVERY
    try:
        for index, last, seen in _plan_steps(job) if job.plan is not None else _eager_steps(job):
            done, end = index + 1, last
            # The last step may forget the state that it began with: D alone is its end.
            if done % every == 0 or done >= total - 1 or done == stop:
                _watch(job, end, initial, deferred)
            if states is not None:
                states.append(own(job.x, end))
            if callback is not None:
                callback(_step_info(job, index, end, seen))
            if done == stop:
                return Result(own(job.x, end), job.evaluations, states, info, checkpoint_of(job))
            if job.offload:
                end = initial
                del last  # a step's end state is not held longer than the machine needs it
    except BaseException as error:  # hosts stop a run with exceptions of that kind too
        _annotate(error, job, end, states, info)
        raise
    if job.machine is not None:
        end = job.machine.newest(job.finished)
    if deferred and not all_finite(torch.stack(deferred).double()):
        _locate(job, initial, end)
    final = end if job.machine is None or job.machine.owns_result() else [leaf.clone() for leaf in end]
    return Result(rebuild(job.x, final), job.evaluations, states, info)


def _plan_steps(job: Job) -> Iterator[Done]:
    """Run a plan step by step."""
    assert job.plan is not None
    machine = job.machine
    if machine is None:
        machine = job.machine = new_machine(job, job.plan)
    if job.wants_states:
        machine.hold_states()
    leaves = machine.leaves
    machine.parking = parking_for(machine.device, job.offload)
    advance = checkpointed_step if job.checkpointed else run_step
    for index, (step, until) in enumerate(zip(job.plan.steps, job.plan.ends, strict=True)):
        if index < job.finished:
            continue
        job.step = index
        machine.park(step.start)
        advance(job, machine, until)
        job.finished = index + 1
        seen = None
        if job.wants_states:
            denoised = None if step.denoised is None else leaves(step.denoised)
            seen = Seen(step.sigma_hat, leaves(step.x), denoised)
            machine.release_held()
        yield index, leaves(step.end), seen


def _eager_steps(job: Job) -> Iterator[Done]:
    """Run a sampler's steps on tensors."""
    from .adaptive import AdaptiveSampler
    from .eager import EagerContext
    from .tries import adaptive_steps

    assert job.sampler is not None
    if isinstance(job.sampler, AdaptiveSampler):
        yield from adaptive_steps(job)
        return
    ctx = EagerContext(job)
    x = ctx.wrap(job.leaves)
    for index in range(job.total):
        job.step = index
        sigma, sigma_next = job.levels[index], job.levels[index + 1]
        ctx._begin(index, x)
        x = ctx.advance(job.sampler, x, sigma, sigma_next)
        ctx._finish(lambda value: value)
        end = ctx.unwrap(x)
        yield index, end, ctx.first or Seen(sigma, end, None)


def _watch(job: Job, end: Leaves, initial: Leaves, deferred: list[Tensor]) -> None:
    """Look at a step's end state: at once on the CPU; on a device after the run, so that nothing waits."""
    for leaf in end:
        if not leaf.is_cpu:
            deferred.append(total_of(leaf))
        elif not all_finite(leaf):
            _locate(job, initial, end)


def _locate(job: Job, initial: Leaves, end: Leaves) -> None:
    """Repeat a run whose state is not finite, looking at every state and output, and raise at the place."""
    if job.origin is not None:
        noise = job.source if job.plan is not None and job.plan.stochastic else None
        again = resumed_job(job.sampler, job.denoiser, None, None, None, noise, job.cond, job.origin)
    else:
        again = Job(
            job.sampler, job.name, job.denoiser, job.x, initial, job.levels, job.path, job.process, job.plan,
            job.source, job.cond,
        )  # fmt: skip
    again.checked, again.offload = True, job.offload
    if again.plan is not None:
        again.sigma_tensors(again.plan)  # anew: a model may have written to those of the run
    try:
        with torch.no_grad():
            for index, state, _ in _plan_steps(again) if again.plan is not None else _eager_steps(again):
                again.refuse_non_finite(state, f"the state at sigma={again.levels[index + 1]:.6g}")
    except NonFiniteError:
        raise
    except Exception as error:
        raise NonFiniteError(
            f"the state became NaN or infinite in {job.where()} or not long before; repeating the run to "
            f"find the place failed: {error!r}"
        ) from error
    if not all(all_finite(leaf) for leaf in end):  # otherwise only a sum had overflowed
        raise NonFiniteError(
            f"the state became NaN or infinite in {job.where()}, but not when the run was repeated to find "
            "the place: the denoiser or the noise is not deterministic"
        )


def _step_info(job: Job, index: int, end: Leaves, seen: Seen | None) -> StepInfo:
    hat, x, denoised = seen or Seen(job.levels[index], end, None)
    return StepInfo(
        index,
        job.total,
        job.levels[index],
        hat,
        job.levels[index + 1],
        None if x is None else own(job.x, x),
        None if denoised is None else own(job.x, denoised),
        own(job.x, end),
        job.evaluations,
    )


def _annotate(
    error: BaseException, job: Job, end: Leaves, states: list[Any] | None, info: dict[str, Any]
) -> None:
    """Say on somebody's exception where the run was, and keep what was computed on it.

    Next to nothing is copied: the run is over, and what stopped it may be that memory is full.
    """
    if not isinstance(error, NonFiniteError):
        error.add_note(f"kdiff: in {job.where()}, after {job.evaluations} evaluations")
    checkpoint = None
    if job.machine is not None:
        end = job.machine.newest(job.finished)
        if not job.machine.busy:
            with contextlib.suppress(RuntimeError, MemoryError):  # full memory
                checkpoint = checkpoint_of(job, copy=False)
    partial = Result(rebuild(job.x, end), job.evaluations, states, info, checkpoint)
    error.partial = partial  # type: ignore[attr-defined]


def _check_stop(stop: int, job: Job) -> None:
    if job.plan is None:
        raise CapabilityError(
            f"stop={stop}: {job.name} has no plan to stop in the middle of: {job.why_eager}"
        )
    if not 1 <= stop <= job.total:
        raise ParameterError(f"stop={stop}: this run has {job.total} steps; give 1 to {job.total}")
    if stop <= job.finished:
        raise ParameterError(f"stop={stop}: the run that is resumed has done {job.finished} steps already")


def _wrapped(denoiser: Any, chunk: Any, compile: Any) -> Any:
    """The denoiser as the run calls it."""
    check_compile(compile)
    if compile and compile != "run":
        denoiser = Compiled(denoiser)
    return denoiser if chunk is None else Chunked(denoiser, chunk)


def _check_plan(job: Job) -> None:
    """Refuse what a run without a plan, or one that repeats its steps, cannot do."""
    if job.checkpointed and job.plan is None:
        raise CapabilityError(
            f"checkpoint_gradients: {job.name} has no plan whose steps could be repeated: {job.why_eager}"
        )
    if job.offload and job.plan is None:
        raise CapabilityError(
            f"offload: {job.name} has no plan that says which states wait: {job.why_eager}; leave it out"
        )
    if job.offload and job.checkpointed:
        raise CapabilityError(
            "offload: with checkpoint_gradients states are kept for the way back; leave one of them out"
        )


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
