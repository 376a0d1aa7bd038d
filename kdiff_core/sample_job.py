"""`SampleJob`: everything that defines a run, from names to samples.

`kd.sample`, the ``kdiff`` command and the manifests that replay a run share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from attrs import field, frozen
from attrs.converters import optional

from .begin import check_begin, comparable, known_of
from .budget import steps_for
from .entry import is_file
from .errors import ParameterError
from .grid import Grid
from .guide import guided
from .lookup import get_denoiser, get_guidance, get_sampler, get_schedule, parse_label
from .path import as_path
from .setup import Setup, at_least_one, device_of, dtype_of, label_condition, noise_range, text_condition

if TYPE_CHECKING:
    from .protocols import Callback
    from .result import Result

# On VE it is the schedule that most hosts and papers use. On flow, where a level lies in [0, 1], it does as
# well: it asks only that levels be positive, begins at sigma_max = 1 exactly, and its steps become short
# towards the data, where the detail is decided; at high noise a flow model's paths are nearly straight.
DEFAULT_SCHEDULE = "karras"
DEFAULT_STEPS = 20
DEFAULT_SAMPLES = 16


def _listed(value: Any) -> Any:
    """Return a sequence, array or tensor of integers as a tuple; a single one as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _scale(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"guidance={value!r:.40}: give a number, the scale; 1 is no guidance") from error


def _number(value: int | None) -> int:
    return value  # type: ignore[return-value]  # None is replaced when the job is made


def _dtype_name(value: Any) -> str:
    return "float32" if value is None else str(value).removeprefix("torch.")


def _compiled_part(value: Any) -> Any:
    return "model" if value is True else value or False


def _device_name(value: Any) -> str | None:
    return None if value is None else str(value)


@frozen
class SampleJob:
    """A run by name. All of it is JSON-able where names, not objects, are given.

    Attributes:
        model: Name of a denoiser, or a denoiser.
        n: Number of samples. Default: one for each prompt, else 16.
        sampler: Name of a sampler, a label that names a schedule too, or a sampler.
        schedule: Name of a schedule, or a schedule. Default: the label's or the tuned file's, else "karras".
        steps: Number of steps. Default: 20, a tuned schedule's own, or what `evaluations` pays for.
        seed: Seed of the run, or one for each sample.
        index: Numbers of the samples, if they are not 0, 1, ...
        label: Class of all samples, or one for each, by number or by name; None: any.
        guidance: Scale of the guidance; None: that of the `guide`, or no guidance.
        sigma_min: Lowest level above 0. Default: the process's, else the model's.
        sigma_max: Highest level. Default: likewise.
        device: Where to run. Default: where the model is, else the CPU.
        dtype: Of the states.
        levels: The exact levels, in place of what the schedule would give.
        model_options: Options of the model's name.
        sampler_options: Options of the sampler's name.
        schedule_options: Options of the schedule's name.
        evaluations: Most calls of the (guided) model, in place of `steps`; see `kdiff_core.steps_for`.
        prompt: Text of all samples, or one for each, for a model that takes text.
        negative: Text that guidance leads away from, or one for each sample; None: no text.
        guide: Name of the guidance, or several around each other, the first innermost ("cfg+rescale"). A
            scale alone asks for "cfg".
        guide_options: Options of the guidance, by ``name``, or ``kind.name`` where several kinds have it.
        chunk: Most samples of a model call, or "auto": fewer where memory does not suffice. Default: all.
        offload: Whether states that wait for a later step are kept on the CPU.
        init: What to begin with: an image file, or an array or tensor in the data's range, for all samples or
            for each. Without a mask it asks for a strength.
        strength: How much of the way is gone, above 0 and at most 1; of a schedule's `steps` as
            the schedule "strength" has it. Default: all of it.
        mask: How much each place of `init` may change: a file (white: made anew, black: kept), or an array or
            tensor from 0 to 1.
        resize: Whether files of another size than the samples are scaled to cover them, and cut.
        variation_seed: Seed, or one for each sample, towards whose noise the initial noise is turned.
        variation_strength: How far, 0 to 1.
        compile: What goes through `torch.compile`: "model" (or True), "run" (model and updates of all steps
            in one; not beside `chunk` and `offload`), or nothing.

    Raises:
        CapabilityError: What is given beside a compiled run needs Python between its steps.
        ParameterError: `n`, `steps` or `evaluations` is no whole number of at least 1; or `evaluations` is
            given beside `steps` or `levels`.
    """

    model: Any = "digits"
    n: int = field(default=None, converter=_number)
    sampler: Any = "dpmpp_2m"
    schedule: Any = None
    steps: int | None = None
    seed: int | tuple[int, ...] = field(default=0, converter=_listed)
    index: tuple[int, ...] | None = field(default=None, converter=_listed)
    label: int | str | tuple[int | str, ...] | None = field(default=None, converter=_listed)
    guidance: float | None = field(default=None, converter=optional(_scale))
    sigma_min: float | None = None
    sigma_max: float | None = None
    device: str | None = field(default=None, converter=_device_name)
    dtype: str = field(default="float32", converter=_dtype_name)
    levels: tuple[float, ...] | None = None
    model_options: Mapping[str, Any] = field(factory=dict, hash=False)
    sampler_options: Mapping[str, Any] = field(factory=dict, hash=False)
    schedule_options: Mapping[str, Any] = field(factory=dict, hash=False)
    evaluations: int | None = None
    prompt: str | tuple[str, ...] | None = field(default=None, converter=_listed)
    negative: str | tuple[str, ...] | None = field(default=None, converter=_listed)
    guide: str | None = None
    guide_options: Mapping[str, Any] = field(factory=dict, hash=False)
    chunk: int | Literal["auto"] | None = None
    offload: bool = False
    init: Any = field(default=None, eq=comparable)
    strength: float | None = None
    mask: Any = field(default=None, eq=comparable)
    resize: bool = False
    variation_seed: int | tuple[int, ...] | None = field(default=None, converter=_listed)
    variation_strength: float = 0.0
    compile: bool | str = field(default=False, converter=_compiled_part)

    def __attrs_post_init__(self) -> None:
        if self.n is None:
            several = isinstance(self.prompt, tuple)
            usual = DEFAULT_SAMPLES if self.prompt is None else len(self.prompt) if several else 1
            object.__setattr__(self, "n", usual)
        at_least_one("n", self.n, "samples")
        if self.steps is not None:
            at_least_one("steps", self.steps, "steps")
        if self.evaluations is not None:
            at_least_one("evaluations", self.evaluations, "model calls")
            if self.steps is not None or self.levels is not None:
                raise ParameterError(
                    f"evaluations={self.evaluations} decides the number of steps; leave out "
                    + ("the levels" if self.levels is not None else f"steps={self.steps}")
                )
        check_begin(self)
        if self.compile:
            from .compiling import check_compile, refuse_beside_compiled_run

            check_compile(self.compile)
            if self.compile == "run":
                refuse_beside_compiled_run(chunk=self.chunk, offload=self.offload)
        numbers = self.index if isinstance(self.index, tuple) else () if self.index is None else ("",)
        if not all(isinstance(number, SupportsIndex) for number in numbers):
            raise ParameterError(
                f"index={self.index!r:.60}: give a list, one number for each sample: n=1, index=[7]"
            )

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> SampleJob:
        """Return the job that a manifest describes; see `kdiff_core.manifest.read_manifest`.

        Raises:
            ParameterError: It is no manifest, or the run had objects that no name stands for.
        """
        from .manifest import job_of

        return job_of(manifest)

    def setup(self, model: Any = None) -> Setup:
        """Build and check everything; the model is not called.

        Args:
            model: The model of another job's setup, in place of building the same again.

        Raises:
            KdiffError: Something does not exist or does not fit; the message says what would be right.
        """
        import torch

        from .chunking import Chunked
        from .compiling import Compiled
        from .noise import KeyedNoise

        sampler_name, schedule_name = self._names()
        sampler = get_sampler(sampler_name, **self.sampler_options)
        model = get_denoiser(self.model, **self.model_options) if model is None else model
        where = device_of(model, self.device)
        if isinstance(self.model, str) and callable(getattr(model, "to", None)):
            model = model.to(where)
        shape = getattr(model, "sample_shape", None)
        if shape is None:
            raise ParameterError(
                f"model {self.model!r:.60} does not say a sample's shape (attribute sample_shape); set it, "
                "or call a sampler yourself: sampler(denoiser, kd.start(sigmas, like=...), sigmas)"
            )
        noise = KeyedNoise(self.seed, self.index)
        noise.check(self.n)
        cond = label_condition(model, self.label, self.n, where)
        cond |= text_condition(model, "prompt", self.prompt, self.n)
        schedule, grid = self._grid(schedule_name, model, sampler)
        like = torch.empty((self.n, *shape), dtype=dtype_of(self.dtype), device=where)
        called = Compiled(model) if self.compile == "model" else model
        # Guidance and masks know something of each sample, and so go around the chunks.
        denoiser, x0 = guided(self, called if self.chunk is None else Chunked(called, self.chunk)), None
        if self.init is not None:
            x0, mask = known_of(model, self.init, self.mask, like, self.resize)
            denoiser = denoiser if mask is None else get_guidance("inpaint", denoiser, x0, mask)
        path = as_path(getattr(model, "path", "ve")).name
        return Setup(
            self, denoiser, model, sampler, sampler_name, schedule, schedule_name, grid, path, noise, cond,
            like, x0,
        )  # fmt: skip

    def run(
        self, callback: Callback | None = None, progress: bool = False, trajectory: bool = False
    ) -> Result:
        """Sample; see `Setup.run`."""
        return self.setup().run(callback, progress, trajectory)

    def _names(self) -> tuple[Any, Any]:
        """Return sampler and schedule, a label split into both; with levels given, no schedule is needed."""
        usual = self.sampler if is_file("sampler", self.sampler) else DEFAULT_SCHEDULE
        default = None if self.levels is not None else usual
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

    def _grid(self, name: Any, model: Any, sampler: Any) -> tuple[Any, Grid]:
        """Return the schedule, None if there is none, and the levels."""
        schedule = None if name is None else get_schedule(name, **self.schedule_options)
        if self.levels is not None:
            return schedule, Grid.of(self.levels)
        assert schedule is not None
        process = getattr(model, "process", None)
        low, high = noise_range(model, process, self.sigma_min, self.sigma_max)

        partly = schedule
        if self.strength is not None:
            partly = get_schedule("strength", schedule=schedule, strength=self.strength)

        def levels(steps: int) -> Grid:
            found: Grid = partly(steps, sigma_min=low, sigma_max=high, process=process)
            return found

        if self.evaluations is None:
            usual = getattr(schedule, "steps", DEFAULT_STEPS)  # a tuned schedule has one number of steps
            return schedule, levels(usual if self.steps is None else self.steps)
        path = as_path(getattr(model, "path", "ve"))
        steps = steps_for(sampler, self.evaluations, path=path, process=process, schedule=levels)
        return schedule, levels(steps)
