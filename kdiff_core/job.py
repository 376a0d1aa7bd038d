"""`SampleJob`: everything that defines a run from names to samples; `Setup`: the same with all of it built.

`kd.sample`, the ``kdiff`` command and the manifests that replay a run share it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import field, frozen

from .errors import CapabilityError, ParameterError, TraceError
from .grid import Grid
from .path import as_path
from .registry import get_denoiser, get_guidance, get_sampler, get_schedule, parse_label

if TYPE_CHECKING:
    import torch

    from .noise import KeyedNoise
    from .plans import Plan
    from .protocols import Callback, PathName
    from .result import Result

# On VE it is the schedule that most hosts and papers use. On flow, where a level lies in [0, 1], it does as
# well: it asks only that levels be positive, begins at sigma_max = 1 exactly, and its steps become short
# towards the data, where the detail is decided; at high noise a flow model's paths are nearly straight.
DEFAULT_SCHEDULE = "karras"


def _listed(value: Any) -> Any:
    """Return a sequence, array or tensor of integers as a tuple; a single one as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _dtype_name(value: Any) -> str:
    return "float32" if value is None else str(value).removeprefix("torch.")


@frozen
class SampleJob:
    """A run by name. All of it is JSON-able where names, not objects, are given.

    Attributes:
        model: Name of a denoiser, or a denoiser.
        n: Number of samples.
        sampler: Name of a sampler, a label that names a schedule too, or a sampler.
        schedule: Name of a schedule, or a schedule. Default: the label's, else "karras".
        steps: Number of steps.
        seed: Seed of the run, or one for each sample.
        index: Numbers of the samples, if they are not 0, 1, ...
        label: Class of all samples, or one for each; None: any.
        guidance: Scale of classifier-free guidance; None: none.
        sigma_min: Lowest level above 0. Default: the process's, else the model's.
        sigma_max: Highest level. Default: likewise.
        device: Where to run. Default: where the model is, else the CPU.
        dtype: Of the states.
        levels: The exact levels, in place of what the schedule would give.
        model_options: Options of the model's name.
        sampler_options: Options of the sampler's name.
        schedule_options: Options of the schedule's name.

    Raises:
        ParameterError: `n` or `steps` is no whole number of at least 1.
    """

    model: Any = "digits"
    n: int = 16
    sampler: Any = "dpmpp_2m"
    schedule: Any = None
    steps: int = 20
    seed: int | tuple[int, ...] = field(default=0, converter=_listed)
    index: tuple[int, ...] | None = field(default=None, converter=_listed)
    label: int | tuple[int, ...] | None = field(default=None, converter=_listed)
    guidance: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    device: str | None = field(default=None, converter=lambda d: None if d is None else str(d))
    dtype: str = field(default="float32", converter=_dtype_name)
    levels: tuple[float, ...] | None = None
    model_options: Mapping[str, Any] = field(factory=dict, hash=False)
    sampler_options: Mapping[str, Any] = field(factory=dict, hash=False)
    schedule_options: Mapping[str, Any] = field(factory=dict, hash=False)

    def __attrs_post_init__(self) -> None:
        _at_least_one("n", self.n, "samples")
        _at_least_one("steps", self.steps, "steps")
        if isinstance(self.index, int):
            raise ParameterError(f"index={self.index}: give a list, one number for each sample: n=1, index=[7]")

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> SampleJob:
        """Return the job that a manifest describes; see `kdiff_core.manifest.read_manifest`.

        Raises:
            ParameterError: It is no manifest, or the run had objects that no name stands for.
        """
        from .manifest import job_of

        return job_of(manifest)

    def setup(self) -> Setup:
        """Build and check everything; the model is not called.

        Raises:
            KdiffError: Something does not exist or does not fit; the message says what would be right.
        """
        import torch

        from .noise import KeyedNoise

        sampler_name, schedule_name = self._names()
        sampler = get_sampler(sampler_name, **self.sampler_options)
        model = get_denoiser(self.model, **self.model_options)
        where = _device(model, self.device)
        if isinstance(self.model, str) and callable(getattr(model, "to", None)):
            model = model.to(where)
        shape = getattr(model, "sample_shape", None)
        if shape is None:
            raise ParameterError(
                f"model {self.model!r:.60} does not say the shape of a sample (attribute sample_shape); set it, "
                "or call a sampler yourself: sampler(denoiser, kd.start(sigmas, like=...), sigmas)"
            )
        noise = KeyedNoise(self.seed, self.index)
        noise.check(self.n)
        cond = _label(model, self.label, self.n, where)
        schedule, grid = self._grid(schedule_name, model)
        like = torch.empty((self.n, *shape), dtype=_dtype(self.dtype), device=where)
        guided = self._guided(model)
        path = as_path(getattr(model, "path", "ve")).name
        return Setup(self, guided, sampler, sampler_name, schedule, schedule_name, grid, path, noise, cond, like)

    def run(self, callback: Callback | None = None, progress: bool = False, trajectory: bool = False) -> Result:
        """Sample; see `Setup.run`."""
        return self.setup().run(callback, progress, trajectory)

    def _names(self) -> tuple[Any, Any]:
        """Return sampler and schedule, a label split into both; the schedule is None where levels are given."""
        default = None if self.levels is not None else DEFAULT_SCHEDULE
        schedule = self.schedule if self.schedule is not None else default
        if not isinstance(self.sampler, str):
            return self.sampler, schedule
        name, inside = parse_label(self.sampler)
        if inside is None:
            return self.sampler, schedule
        same = self.levels is None and (
            self.schedule is None or get_schedule(self.schedule) == get_schedule(inside)
        )
        if not same:
            other = self.schedule if self.schedule is not None else "levels of your own"
            raise ParameterError(
                f"sampler={self.sampler!r} names the schedule {inside!r}, but schedule= is {other!r:.60}; "
                f"give sampler={name!r} with a schedule, or the label alone"
            )
        return name, inside if self.schedule is None else self.schedule

    def _grid(self, name: Any, model: Any) -> tuple[Any, Grid]:
        """Return the schedule, None if there is none, and the levels."""
        schedule = None if name is None else get_schedule(name, **self.schedule_options)
        if self.levels is not None:
            return schedule, Grid.of(self.levels)
        process = getattr(model, "process", None)
        low, high = noise_range(model, process, self.sigma_min, self.sigma_max)
        return schedule, schedule(self.steps, sigma_min=low, sigma_max=high, process=process)

    def _guided(self, model: Any) -> Any:
        if self.guidance is None:
            return model
        if self.label is None:
            raise ParameterError(f"guidance={self.guidance} without a label: there is no class to guide to; give label=")
        return get_guidance("cfg", model, scale=self.guidance)


class Setup(NamedTuple):
    """A job with everything built: what `SampleJob.setup` returns.

    Attributes:
        job: The job.
        denoiser: The model, guided if it is to be.
        sampler: The sampler.
        sampler_name: Its name, without a schedule's; or the sampler that was given.
        schedule: The schedule, or None.
        schedule_name: Its name; or the schedule that was given, or None.
        grid: The levels.
        path: The model's noise path.
        noise: Source of the initial and of the step noise.
        cond: The model's conditions.
        like: A state of the run's shape, dtype and device; its values mean nothing.
    """

    job: SampleJob
    denoiser: Any
    sampler: Any
    sampler_name: Any
    schedule: Any
    schedule_name: Any
    grid: Grid
    path: PathName
    noise: KeyedNoise
    cond: dict[str, Any]
    like: torch.Tensor

    def plan(self) -> Plan | None:
        """What the sampler will do, or None if that is not known beforehand."""
        if not getattr(self.sampler, "linear", True):
            return None
        try:
            plan: Plan = self.sampler.plan(self.grid, self.path, getattr(self.denoiser, "process", None))
        except TraceError:
            return None
        return plan

    def run(self, callback: Callback | None = None, progress: bool = False, trajectory: bool = False) -> Result:
        """Sample, without recording gradients.

        Args:
            callback: Called with a `StepInfo` at the end of each step; may raise to stop.
            progress: Show a progress bar that counts model calls.
            trajectory: Keep the states at all levels.
        """
        import torch

        from .noise import start

        if not callable(getattr(self.sampler, "run", None)):
            raise CapabilityError(f"{self.sampler!r} has no run(...); only samplers built on StepSampler do here")
        x = start(self.grid, self.like, self.path, noise=self.noise)
        with torch.no_grad():
            result: Result = self.sampler.run(
                self.denoiser,
                x,
                self.grid,
                noise=self.noise,
                cond=self.cond,
                callback=callback,
                progress=progress,
                trajectory=trajectory,
            )
        return result


def noise_range(
    model: Any, process: Any, sigma_min: float | None, sigma_max: float | None
) -> tuple[float | None, float | None]:
    """Return the range of levels to give to a schedule: as given, else the process's (None), else the model's."""
    if process is not None:
        return sigma_min, sigma_max
    low = getattr(model, "sigma_min", None) if sigma_min is None else sigma_min
    high = getattr(model, "sigma_max", None) if sigma_max is None else sigma_max
    if high is None and getattr(model, "path", "ve") == "flow":
        high = 1.0
    return low, high


def _at_least_one(name: str, value: Any, of_what: str) -> None:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ParameterError(f"{name}={value!r}: the number of {of_what} must be a whole number of at least 1")


def _device(model: Any, device: str | None) -> Any:
    """Return the device asked for, else the model's, else the CPU."""
    import torch

    if device is None:
        parameters = getattr(model, "parameters", None)
        first = next(iter(parameters()), None) if callable(parameters) else None
        return torch.device("cpu") if first is None else first.device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(f"device={device!r} cannot be used here: {reason}; device='cpu' works") from error
    return torch.device(device)


def _dtype(name: str) -> torch.dtype:
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ParameterError(f"dtype={name!r}: give 'float32', 'float64', 'bfloat16' or 'float16'")
    return found


def _label(model: Any, label: Any, n: int, device: Any) -> dict[str, Any]:
    """Return the condition that asks for a class, checked before the model is called."""
    if label is None:
        return {}
    import torch

    classes = getattr(model, "classes", None)
    if classes is None:
        raise ParameterError(f"label={label!r:.40}: the model has no classes; leave the label out")
    wanted = list(label) if isinstance(label, tuple) else [label] * n
    if len(wanted) != n:
        raise ParameterError(f"label: {len(wanted)} given for n={n} samples; give one number, or one for each")
    for i, value in enumerate(wanted):
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < classes:
            where = f"label[{i}]" if isinstance(label, tuple) else "label"
            raise ParameterError(f"{where}={value!r}: classes are 0 to {classes - 1}, -1 is any")
    return {"label": torch.tensor(wanted, dtype=torch.int64, device=device)}
