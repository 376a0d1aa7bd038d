"""Sampling by name: `plan`, `sample`, and `KSampler` for those who have a model and unit noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .errors import ParameterError
from .grid import Grid
from .lookup import get_denoiser, get_process, get_sampler, get_schedule, parse_label
from .sample_job import DEFAULT_SCHEDULE, SampleJob
from .setup import noise_range

if TYPE_CHECKING:
    from .path import Path
    from .plans import Plan
    from .protocols import Callback, PathName, Process

__all__ = ["KSampler", "SampleJob", "plan", "sample"]


def plan(sampler: Any, sigmas: Any, path: PathName | Path = "ve", process: Process | None = None) -> Plan:
    """What a sampler does on a grid, as data.

    Args:
        sampler: A sampler, or its name.
        sigmas: Grid, or anything that makes one.
        path: Noise path, ``"ve"`` or ``"flow"``.
        process: The model's noise process, if known.

    Raises:
        UnknownNameError: No plugin offers the sampler.
        TraceError: The sampler is not linear in the state, so it has no plan.
        GridError: Levels that cannot be run.
    """
    found: Plan = get_sampler(sampler).plan(sigmas, path, process)
    return found


def sample(
    model: Any = "digits",
    n: int | None = None,
    *,
    sampler: Any = "dpmpp_2m",
    schedule: Any = None,
    steps: int | None = None,
    seed: int | Sequence[int] = 0,
    index: Sequence[int] | None = None,
    label: int | str | Sequence[int | str] | None = None,
    guidance: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    device: Any = None,
    dtype: Any = None,
    progress: bool = False,
    callback: Callback | None = None,
    trajectory: bool = False,
    evaluations: int | None = None,
    prompt: str | Sequence[str] | None = None,
    negative: str | Sequence[str] | None = None,
    guide: str | None = None,
    guide_options: Mapping[str, Any] | None = None,
    init: Any = None,
    strength: float | None = None,
    mask: Any = None,
    resize: bool = False,
    variation_seed: int | Sequence[int] | None = None,
    variation_strength: float = 0.0,
    chunk: int | Literal["auto"] | None = None,
    offload: bool = False,
    compile: bool | str = False,
) -> Any:
    """Sample from a model, everything by name. No gradient is recorded.

    Sample `i` of a seed is the same whatever `n`, so ``sample(n=1, index=[7])`` is sample 7 alone.

    Args:
        model: Name of a denoiser, or a denoiser that says its ``sample_shape``.
        n: Number of samples. Default: one for each prompt, else 16.
        sampler: A name, a label that names a schedule too ("DPM++ 2M Karras"), or a sampler.
        schedule: A name, a schedule, or the levels themselves, whose number then decides the steps.
            Default: the label's, else "karras", on VE and on flow.
        steps: Number of steps. Default: 20, or what `evaluations` pays for.
        seed: Seed of the run, or one for each sample.
        index: Numbers of the samples, `n` of them, if they are not 0, 1, ...
        label: Class of all samples, or one for each, by number (-1: any) or by a name that the model has for
            it. Default: any.
        guidance: Scale of the guidance towards the label or the prompt. Default: that of the `guide`, or no
            guidance.
        sigma_min: Lowest level above 0. Default: of the model's process, else of the model.
        sigma_max: Highest level. Default: likewise.
        device: Default: where the model is, else the CPU.
        dtype: Of the states, a name or a `torch.dtype`. Default: float32.
        progress: Show a progress bar that counts model calls.
        callback: Called with a `StepInfo` at the end of each step; may raise to stop.
        trajectory: Return the states at all levels.
        evaluations: Most calls of the (guided) model, in place of `steps`; see `kdiff_core.steps_for`.
        prompt: Text of all samples, or one for each, for a model that takes text.
        negative: Text that guidance leads away from, or one for each sample. Default: no text.
        guide: Name of the guidance, or several around each other, the first innermost ("cfg+rescale").
            Default: "cfg" where a scale is given.
        guide_options: Options of the guidance, by ``name``, or ``kind.name`` where several kinds have it.
        init: What to begin with: an image file, or an array or tensor in the data's range, for all samples or
            for each. Without a mask it asks for a strength.
        strength: How much of the way is gone, above 0 and at most 1. Default: all of it.
        mask: How much each place of `init` may change: a file (white: made anew, black: kept), or an array or
            tensor from 0 to 1.
        resize: Whether files of another size than the samples are scaled to cover them, and cut.
        variation_seed: Seed, or one for each sample, towards whose noise the initial noise is turned.
        variation_strength: How far, 0 to 1.
        chunk: Most samples of a model call, or "auto": fewer where memory does not suffice. Default: all.
        offload: Keep states that wait for a later step on the CPU.
        compile: What goes through `torch.compile`: "model" (or True), or "run" (model and updates of all
            steps in one; no callback, progress, trajectory, chunk or offload). Default: nothing.

    Returns:
        The samples, ``(n, ...)``: images, where the model decodes its states to them. With `trajectory`, the
        states at all levels, ``(levels, n, ...)``, of which the last are the samples or what is decoded.

    Raises:
        ParameterError: An argument is out of its range; nothing has been run.
        UnknownNameError: No plugin offers a name; the message has the nearest.
    """
    levels = None
    if schedule is not None and not isinstance(schedule, str) and not callable(schedule):
        grid = Grid.of(schedule)
        schedule, levels = None, tuple(grid)
        steps = grid.steps if evaluations is None else steps
    job = SampleJob(
        model, n, sampler, schedule, steps, seed, index, label, guidance, sigma_min, sigma_max,
        device, dtype, levels, evaluations=evaluations, prompt=prompt, negative=negative, guide=guide,
        guide_options=guide_options or {}, init=init, strength=strength, mask=mask, resize=resize,
        variation_seed=variation_seed, variation_strength=variation_strength, chunk=chunk, offload=offload,
        compile=compile,
    )  # fmt: skip
    setup = job.setup()
    result = setup.run(callback, progress, trajectory)
    if result.trajectory is None:
        return setup.decoded(result.x)
    import torch

    return torch.stack(result.trajectory)


class KSampler:
    """A model, a schedule and a sampler that turn unit noise into samples.

    Args:
        model: A denoiser, or the name of one.
        schedule: A schedule, its name, or the levels themselves. Default: the label's, else "karras".
        sampler: A sampler, its name, or a label that names a schedule too.
        scheduler: Another name of `schedule`.
        process: What the model was trained on. Default: its attribute ``process``.
        sigma_min: Lowest level above 0. Default: the process's, else the model's.
        sigma_max: Highest level. Default: likewise.

    Raises:
        ParameterError: `schedule` and `scheduler` are both given.
    """

    def __init__(
        self,
        model: Any,
        schedule: Any = None,
        sampler: Any = "dpmpp_2m",
        *,
        scheduler: Any = None,
        process: Any = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        schedule = _one_of("schedule", schedule, "scheduler", scheduler)
        if isinstance(sampler, str):
            name, inside = parse_label(sampler)
            if inside is not None and schedule is not None:
                raise ParameterError(
                    f"sampler={sampler!r} names a schedule, and another is given; give one of them"
                )
            sampler, schedule = (sampler, schedule) if inside is None else (name, inside)
        self.denoiser = get_denoiser(model)
        self.sampler = get_sampler(sampler)
        self.schedule = _schedule(schedule)
        self.process = getattr(self.denoiser, "process", None) if process is None else get_process(process)
        self.sigma_min, self.sigma_max = noise_range(self.denoiser, self.process, sigma_min, sigma_max)

    def sigmas(self, steps: int) -> Grid:
        """Return the levels of a run, ``steps + 1`` of them."""
        return Grid.of(
            self.schedule(steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, process=self.process)
        )

    def sample(
        self,
        x: Any,
        steps: int = 50,
        *,
        cond: Any = None,
        condition: Any = None,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        callback: Callable[[Any], Any] | None = None,
        progress: bool = False,
    ) -> Any:
        """Sample. No gradient is recorded unless `x` requires one.

        Args:
            x: Unit noise, ``(B, ...)`` or a nest. It is scaled here, to the highest level; it is not changed.
            steps: Number of steps.
            cond: Keyword arguments for the model, a dict; or, for a model with ``classes``, an integer
                tensor ``(B,)``, the label of each sample.
            condition: Another name of `cond`.
            seed: Seed of the step noise, or one for each sample. Default: a fresh one.
            noise: Noise source in place of `seed`.
            callback: Called with a `StepInfo` at the end of each step; may raise to stop.
            progress: Show a progress bar that counts model calls.

        Returns:
            The samples, like `x`.

        Raises:
            ParameterError: `cond` is something else, or is given twice.
        """
        import torch

        from .state import check_state, rebuild

        given = _conditions(self.denoiser, _one_of("cond", cond, "condition", condition))
        grid = self.sigmas(steps)
        leaves = check_state(x)
        # On both paths a state of pure noise is sigma * noise; at the end of a flow path sigma is 1.
        scaled = rebuild(x, [leaf * grid[0] for leaf in leaves])
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)):
            return self.sampler(
                self.denoiser,
                scaled,
                grid,
                seed=seed,
                noise=noise,
                cond=given,
                callback=callback,
                progress=progress,
                process=self.process,
            )

    def __repr__(self) -> str:
        """Show the parts."""
        return f"KSampler({self.denoiser!r}, {self.schedule!r}, {self.sampler!r})"


def _one_of(name: str, value: Any, other_name: str, other: Any) -> Any:
    """Return what was given under one of two names.

    Raises:
        ParameterError: It was given under both.
    """
    if value is not None and other is not None:
        raise ParameterError(f"{name} and {other_name} are two names of one argument; give one of them")
    return other if value is None else value


def _schedule(schedule: Any) -> Any:
    if schedule is None or isinstance(schedule, str) or callable(schedule):
        return get_schedule(DEFAULT_SCHEDULE if schedule is None else schedule)
    return get_schedule("custom", levels=schedule)


def _conditions(denoiser: Any, cond: Any) -> dict[str, Any]:
    """Return the keyword arguments for a denoiser."""
    if cond is None:
        return {}
    if isinstance(cond, Mapping) and all(isinstance(key, str) for key in cond):
        return dict(cond)
    import torch

    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if getattr(denoiser, "classes", None) is not None and getattr(cond, "dtype", None) in integers:
        return {"label": cond}
    raise ParameterError(
        f"cond={type(cond).__name__}: give a dict, the keyword arguments of the model, such as "
        "cond={'label': labels}; an integer tensor alone is taken as the label by a model with classes"
    )
