"""`StepSampler`: the base of samplers. An author writes one pure step; the core does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from .errors import CapabilityError, GridError, ParameterError, TraceError
from .grid import Grid
from .path import Path, as_path, path_grid, path_levels
from .plans import Plan
from .tracing import trace

if TYPE_CHECKING:
    from .context import StepContext
    from .protocols import Callback, Denoiser, PathName, Process
    from .result import Checkpoint, Result


class StepSampler:
    """A sampler given by its step. Subclasses are attrs-frozen: their fields are the parameters.

    A step is pure: it draws no random number of its own, changes nothing in place and keeps nothing on
    `self`. Model outputs and noise it gets from `ctx`; what later steps need it gives to ``ctx.keep``.

    Attributes:
        order: Order of one step, given exact history, on uneven steps; with noise the weak order: that in
            which mean and covariance of the output approach the exact ones on normal data.
        memory: Number of earlier points that a step reads from ``ctx.past``.
        stochastic: Whether it asks for noise.
        reaches_zero: Whether `step` itself goes to level 0; otherwise the core ends with ``D(x, sigma)``.
        rises: Whether the levels that `prepare` returns may rise.
        needs: Outputs that it needs beside the guided one: ``"cond"``, ``"uncond"``.
        linear: Whether each state is a linear combination of earlier ones, so that it can be traced.
        path_invariant: Whether it promises one trajectory on VE and flow, but for the change of variables.
        known_failures: Checks of the conformance kit that it is known to fail, each with the reason.
    """

    __slots__ = ()

    order: int = 1
    memory: int = 0
    stochastic: bool = False
    reaches_zero: bool = False
    rises: bool = False
    needs: frozenset[str] = frozenset()
    linear: bool = True
    path_invariant: bool = False
    known_failures: Mapping[str, str] = MappingProxyType({})

    @property
    def order_smooth(self) -> int:
        """Order on grids that a smooth function makes; differs from `order` for a few methods only."""
        return self.order

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """Return the levels to visit. Default: those of the grid.

        Args:
            grid: What the caller asked for.
            path: The noise path.
            process: The model's noise process, or None.
        """
        return grid

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Go from `sigma` to `sigma_next`.

        Args:
            ctx: What the step can ask for.
            x: State at `sigma`: a symbol, a tensor or a nest; sums and products with numbers work on all.
            sigma: Level of the state.
            sigma_next: Level to reach; above 0 unless the sampler `reaches_zero`.

        Returns:
            The state at `sigma_next`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def levels(self, sigmas: Any, path: PathName | Path = "ve", process: Process | None = None) -> Grid:
        """Return the levels that a run visits, checked.

        Raises:
            GridError: The grid, or what `prepare` made of it, cannot be run on this path.
        """
        path = as_path(path)
        grid = path_grid(sigmas, path)
        prepared = self.prepare(grid, path, process)
        if prepared is grid:
            return grid
        visited = tuple(float(v) for v in prepared)
        if not self.rises:
            return path_levels((Grid.rising if grid[0] < grid[-1] else Grid.of)(visited), path)
        for i, (a, b) in enumerate(pairwise(visited)):
            if not (math.isfinite(a) and math.isfinite(b)) or a == b or a <= 0 or b < 0:
                raise GridError(f"{self!r} visits level {i}, {a}, and then {b}; it cannot step between them")
        if len(visited) < 2:
            raise GridError(f"{self!r} visits {len(visited)} levels; a run needs at least two")
        return path_levels(Grid(visited), path)

    def plan(self, sigmas: Any, path: PathName | Path = "ve", process: Process | None = None) -> Plan:
        """What this sampler does on a grid, as data.

        Args:
            sigmas: Grid, or anything that makes one.
            path: Noise path.
            process: The model's noise process, if known.

        Raises:
            TraceError: The sampler is not linear in the state, so it has no plan.
            GridError: Levels that cannot be run.
            PlanError: A weight that is not finite.
        """
        path = as_path(path)
        levels = self.levels(sigmas, path, process)
        if not self.linear:
            raise TraceError(f"{self!r} declares linear = False: it has no plan")
        try:
            hash((self, process))
        except TypeError:  # a parameter that cannot be hashed: no caching
            return trace(self, tuple(levels), path, process)
        if type(self).__hash__ is object.__hash__:  # told apart by identity, though it may change
            return trace(self, tuple(levels), path, process)
        return _traced(self, levels, path, process)  # type: ignore[arg-type]  # hashed just now

    def run(
        self,
        denoiser: Denoiser,
        x: Any = None,
        sigmas: Any = None,
        *,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        cond: dict[str, Any] | None = None,
        callback: Callback | None = None,
        progress: bool = False,
        trajectory: bool = False,
        process: Process | None = None,
        stop: int | None = None,
        resume: Checkpoint | None = None,
        checkpoint_gradients: bool = False,
        chunk: int | Literal["auto"] | None = None,
        offload: bool = False,
        compile: bool | Literal["model", "run"] = False,
    ) -> Result:
        """Sample, and return everything about the run.

        Args:
            denoiser: The model; see `kdiff_core.protocols.Denoiser`.
            x: State at the first level, ``(B, ...)`` or a nest; see `kdiff_core.start`.
            sigmas: Noise levels, ``n + 1`` for ``n`` steps.
            seed: Seed of the step noise, or one for each sample. Default: a fresh one, found in ``info``.
            noise: Noise source in place of `seed`; see `kdiff_core.noise_from`.
            cond: Keyword arguments for the denoiser.
            callback: Called with a `StepInfo` at the end of each step; may raise to stop.
            progress: Show a progress bar that counts model calls.
            trajectory: Keep the states at all levels.
            process: The model's noise process; default its attribute ``process``, if it has one.
            stop: Stop after this many steps, with a checkpoint.
            resume: Go on from a checkpoint, in place of `x` and `sigmas`.
            checkpoint_gradients: Where gradients are recorded, keep a few states for each step and compute
                the rest again on the way back: the memory of one step's activations, at twice the calls.
            chunk: Most samples of a model call, or "auto": the whole batch, and half as many each time that
                memory does not suffice; see `kdiff_core.chunking.Chunked`.
            offload: Keep states that wait for a later step on the CPU. It changes no bit, and on the CPU
                nothing.
            compile: "model" or True compiles the denoiser with `torch.compile`, "run" the whole run: a
                plan and a model that torch can trace, without callbacks, stops and the like.

        Raises:
            GridError: Noise levels that are empty, rising, repeated, negative or not finite.
            StateError: A state that no sampler can start from.
            NoiseError: Seeds that do not fit the batch.
            CapabilityError: The sampler needs what the denoiser cannot give.
            DenoiserError: The denoiser returned something other than a state like `x`.
            NonFiniteError: A model output or a state became NaN or infinite.
        """
        from .engine import run

        return run(
            self,
            denoiser,
            x,
            sigmas,
            seed=seed,
            noise=noise,
            cond=cond,
            callback=callback,
            progress=progress,
            trajectory=trajectory,
            process=process,
            stop=stop,
            resume=resume,
            checkpoint_gradients=checkpoint_gradients,
            chunk=chunk,
            offload=offload,
            compile=compile,
        )

    def __call__(self, denoiser: Denoiser, x: Any, sigmas: Any, **options: Any) -> Any:
        """Sample, and return the final state; the options are those of `run`."""
        return self.run(denoiser, x, sigmas, **options).x


@lru_cache(maxsize=128)
def _traced(sampler: StepSampler, levels: Grid, path: Path, process: Process | None) -> Plan:
    return trace(sampler, tuple(levels), path, process)


def check_one_step(instance: Any, attribute: Any, solver: Any) -> None:
    """Validate the solver of a modifier that works on one deterministic step at a time (an attrs validator).

    Raises:
        ParameterError: The solver has a memory, draws noise, or is no `StepSampler`.
    """
    name = type(instance).__name__
    if not isinstance(solver, StepSampler):
        raise ParameterError(f"{name}: {attribute.name}={solver!r:.60} is no StepSampler")
    if solver.memory or solver.stochastic:
        why = f"reads {solver.memory} earlier points" if solver.memory else "draws noise itself"
        raise ParameterError(
            f"{name} does not make sense for {solver!r}, which {why}; it takes a deterministic one-step "
            "solver such as 'euler', 'heun', 'dpm2' or 'dpmpp_2s'"
        )


def check_needs(sampler: StepSampler, denoiser: Any) -> None:
    """Refuse a denoiser that cannot give what a sampler needs.

    Raises:
        CapabilityError: It has no ``predict``, or is not callable.
    """
    if not callable(denoiser):
        raise CapabilityError(
            f"denoiser={denoiser!r:.60} is not callable; a denoiser is called with (x, sigma, **cond)"
        )
    if sampler.needs and not callable(getattr(denoiser, "predict", None)):
        raise CapabilityError(
            f"{sampler!r} needs the outputs {sorted(sampler.needs)}; {type(denoiser).__name__} has no "
            "predict(x, sigma, **cond). Wrap it in a guided denoiser: kd.get_guidance('cfg', model)"
        )
