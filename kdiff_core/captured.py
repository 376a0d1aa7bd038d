"""`capture`: a whole run as one CUDA graph, replayed for new states, noise and conditions.

What bounds a small model's speed on a GPU is the time it takes to launch its kernels. A graph of all model
calls and updates of a plan is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .compiling import check_end
from .draw import drawer
from .errors import CapabilityError, NoiseError, ParameterError, StateError
from .job import Job, new_job
from .known_levels import knowing_levels
from .machine import Machine
from .noise import choose_source
from .plans import Noise, Plan
from .recompute import run_step
from .result import Result
from .sampler import check_needs
from .state import Leaves, check_like, check_state, flatten_like, rebuild

if TYPE_CHECKING:
    from .protocols import Denoiser, Process
    from .sampler import StepSampler

# Records a function that reads and writes fixed memory: calls it `warmup` times, records one more call, and
# returns that call's tensors and what replays it into them.
Recorder = Callable[[Callable[[], Leaves], int], tuple[Leaves, Callable[[], None]]]


def cuda_graph(function: Callable[[], Leaves], warmup: int) -> tuple[Leaves, Callable[[], None]]:
    """Record a function as a CUDA graph, after warm-up calls on a side stream."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = function()
    except RuntimeError as error:
        error.add_note(
            "kdiff: the run cannot be captured. A model that waits for the GPU (.item(), .cpu(), a Python if "
            "on a tensor) or copies from unpinned memory is not static; compile='model' takes such a model"
        )
        raise
    return outputs, graph.replay


def capture(
    sampler: StepSampler,
    denoiser: Denoiser,
    like: Any,
    sigmas: Any,
    *,
    cond: dict[str, Any] | None = None,
    process: Process | None = None,
    warmup: int = 1,
    recorder: Recorder | None = None,
) -> CapturedRun:
    """Capture a run: all model calls and updates of a plan, as one CUDA graph. No gradient is recorded.

    The model's Python code runs while it is captured and never again; so it must do the same at every run,
    and its parameters may change only in place.

    Args:
        sampler: A sampler that has a plan.
        denoiser: The model.
        like: A state of the shapes, dtypes and device of those to come; its values are not read.
        sigmas: Noise levels, or anything that makes a grid.
        cond: Keyword arguments for the denoiser. Its tensors are copied; later runs may give others like
            them. Everything else is fixed.
        process: The model's noise process; default its attribute ``process``, if it has one.
        warmup: Runs before the one that is captured.
        recorder: What records, in place of a CUDA graph.

    Raises:
        CapabilityError: The state is not on a CUDA device, or the sampler has no plan.
        StateError: `like` is no state.
        ParameterError: `warmup` is no whole number of at least 1.
    """
    check_needs(sampler, denoiser)
    leaves = check_like(like)
    if recorder is None and leaves[0].device.type != "cuda":
        raise CapabilityError(
            f"capture: graphs are captured on CUDA, and `like` is on {leaves[0].device}; "
            "there use sampler.run(..., compile='run')"
        )
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1:
        raise ParameterError(f"warmup={warmup!r:.40}: give the number of runs before the capture, at least 1")
    given, structure = tree_flatten(cond or {})
    with torch.inference_mode(False), torch.no_grad():  # memory that a run writes to in any mode
        state = rebuild(like, [torch.zeros_like(leaf) for leaf in leaves])
        static = [value.clone() if isinstance(value, Tensor) else value for value in given]
    job = new_job(sampler, denoiser, state, sigmas, 0, None, tree_unflatten(static, structure), process)
    if job.plan is None:
        raise CapabilityError(f"capture: {job.name} has no plan to capture: {job.why_eager}")
    traced = sampler.plan(sigmas, job.path, job.process)
    split = traced.noises != job.plan.noises
    return CapturedRun(job, job.plan, given, split, warmup, recorder or cuda_graph)


class CapturedRun:
    """A captured run, which `capture` makes. Calling it replays it, for one caller at a time.

    Attributes:
        plan: What is run.
        noises: The memory of each noise of the plan, like the state, by register.
    """

    def __init__(
        self, job: Job, plan: Plan, cond: Sequence[Any], split: bool, warmup: int, recorder: Recorder
    ) -> None:
        self.plan, self._split = plan, split
        self._job, self._cond = job, [v.clone() if isinstance(v, Tensor) else v for v in cond]
        with torch.inference_mode(False):
            self.noises = {op.out: [torch.zeros_like(leaf) for leaf in job.leaves] for op in plan.noises}
        job.sigma_tensors(plan)
        # A graph is of the current GPU's work alone; the state may be on another one.
        with torch.no_grad(), torch.cuda.device_of(job.leaves[0]):  # type: ignore[no-untyped-call]
            self._end, self._replay = recorder(self._once, warmup)

    def __call__(self, x: Any, **options: Any) -> Any:
        """Sample, and return the final state; the options are those of `run`."""
        return self.run(x, **options).x

    def run(
        self,
        x: Any,
        *,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        cond: dict[str, Any] | None = None,
        **refused: Any,
    ) -> Result:
        """Sample from a state: copy it, the noise and the conditions to where the graph reads them; replay.

        Args:
            x: State at the first level, like that of the capture.
            seed: Seed of the step noise, or one for each sample. Default: a fresh one.
            noise: Noise source in place of `seed`.
            cond: Conditions like those of the capture. Default: those.
            **refused: Options of `StepSampler.run` that need Python between the steps are errors.

        Returns:
            What a run returns; its state is the caller's own.

        Raises:
            CapabilityError: A callback or another option that a graph has no place for.
            StateError: `x` is not like the state of the capture, or requires a gradient.
            ParameterError: Conditions that are not like those of the capture.
            NoiseError: Seeds or a source that do not fit.
            NonFiniteError: The final state is NaN or infinite.
        """
        if refused:
            raise CapabilityError(
                f"{next(iter(refused))}: a captured run has no Python between its steps; use sampler.run"
            )
        with torch.no_grad():
            leaves, values = self._checked_state(x), self._checked_cond(cond)
            source = self._source(seed, noise)
            draw = drawer(source, self._job.x, self._job.leaves, self.plan.noises)
            for old, new in zip(self._job.leaves, leaves, strict=True):
                old.copy_(new)
            for target, value in values:
                target.copy_(value)
            for op in self.plan.noises:
                for target, drawn in zip(self.noises[op.out], draw(op, None), strict=True):
                    target.copy_(drawn)
            self._replay()
            end = [leaf.clone() for leaf in self._end]
        check_end(end, self._job.name)
        info = {**self._job.facts(), "noise": source}
        return Result(rebuild(self._job.x, end), self.plan.evaluations, None, info)

    def _once(self) -> Leaves:
        """The run on fixed memory, by the engine's own machine: its results are the engine's bit for bit."""
        job = evolve(self._job, evaluations=0)
        machine = Machine(self.plan, job.leaves, self._drawn)
        with knowing_levels(job):  # what is computed of them is part of the graph
            for until in self.plan.ends:
                run_step(job, machine, until)
        return machine.leaves(self.plan.result)

    def _drawn(self, request: Noise, buffer: Leaves | None) -> Leaves:
        return self.noises[request.out]

    def _checked_state(self, x: Any) -> Leaves:
        leaves = flatten_like(self._job.x, x)
        check_state(x)
        for new, old in zip(leaves, self._job.leaves, strict=True):
            if (new.shape, new.dtype, new.device) != (old.shape, old.dtype, old.device):
                raise StateError(
                    f"x: {tuple(new.shape)}, {new.dtype} on {new.device}; the run was captured for "
                    f"{tuple(old.shape)}, {old.dtype} on {old.device}"
                )
            if new.requires_grad:
                raise StateError(
                    "x requires a gradient, which a captured run does not record; use sampler.run"
                )
        return leaves

    def _checked_cond(self, cond: dict[str, Any] | None) -> list[tuple[Tensor, Tensor]]:
        """Pairs of a tensor that the graph reads and the value to copy there."""
        fixed, structure = tree_flatten(self._job.cond)
        given, other = (self._cond, structure) if cond is None else tree_flatten(cond)
        if structure != other:
            raise ParameterError(
                f"cond: {sorted(cond or {})} has not the structure of {sorted(self._job.cond)}"
            )
        pairs = []
        for old, new in zip(fixed, given, strict=True):
            if isinstance(old, Tensor) and isinstance(new, Tensor):
                if (old.shape, old.dtype) != (new.shape, new.dtype):
                    raise ParameterError(
                        f"cond: {tuple(new.shape)}, {new.dtype}; the run was captured with "
                        f"{tuple(old.shape)}, {old.dtype}"
                    )
                pairs.append((old, new))
            elif isinstance(old, Tensor) or isinstance(new, Tensor) or old != new:
                raise ParameterError(
                    f"cond: {new!r:.40}; the run was captured with {old!r:.40}, which is fixed"
                )
        return pairs

    def _source(self, seed: Any, noise: Any) -> Any:
        source = choose_source(seed, noise, self._job.leaves[0].shape[0])
        if not self.plan.stochastic:
            return None
        if self._split and not getattr(source, "brownian", False):
            raise NoiseError(
                f"{source!r:.60}: overlapping noises were captured in independent pieces, which this source "
                "does not tell apart; give a seed, or torch generators"
            )
        return source
