"""`Setup`: a job with everything built; and the checks that come before the first model call."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CapabilityError, ParameterError, TraceError
from .grid import Grid
from .names import quoted

if TYPE_CHECKING:
    import torch

    from .estimate import MemoryEstimate
    from .noise import KeyedNoise
    from .plans import Plan
    from .protocols import Callback
    from .result import Result
    from .sample_job import SampleJob


class Setup(NamedTuple):
    """A job with everything built: what `SampleJob.setup` returns.

    Attributes:
        job: The job.
        denoiser: The model, guided if it is to be.
        model: The model itself.
        sampler: The sampler.
        sampler_name: Its name, without a schedule's; or the sampler that was given.
        schedule: The schedule, or None.
        schedule_name: Its name; or the schedule that was given, or None.
        grid: The levels.
        path: The model's noise path.
        noise: Source of the initial and of the step noise.
        cond: The model's conditions.
        like: A state of the run's shape, dtype and device; its values mean nothing.
        x0: The data to begin with, or None.
    """

    job: SampleJob
    denoiser: Any
    model: Any
    sampler: Any
    sampler_name: Any
    schedule: Any
    schedule_name: Any
    grid: Grid
    path: str
    noise: KeyedNoise
    cond: dict[str, Any]
    like: torch.Tensor
    x0: torch.Tensor | None = None

    def plan(self) -> Plan | None:
        """What the sampler will do, or None if that is not known beforehand."""
        if not getattr(self.sampler, "linear", True):
            return None
        try:
            plan: Plan = self.sampler.plan(self.grid, self.path, getattr(self.denoiser, "process", None))
        except TraceError:
            return None
        return plan

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample, that of an image where the model decodes its states to one."""
        decoded = getattr(self.model, "decoded_shape", None)
        return tuple(self.like.shape[1:]) if decoded is None else tuple(decoded)

    def decoded(self, x: torch.Tensor) -> torch.Tensor:
        """Return the samples of states, ``(B, ...)``: what the model decodes them to, one by one.

        Decoded together they would need much memory, and could depend on their batch by a bit.
        """
        import torch

        decode = getattr(self.model, "decode", None)
        if not callable(decode):
            return x
        with torch.no_grad():
            return torch.cat([decode(one[None]) for one in x])

    def run(
        self, callback: Callback | None = None, progress: bool = False, trajectory: bool = False
    ) -> Result:
        """Sample, without recording gradients.

        Args:
            callback: Called with a `StepInfo` at the end of each step; may raise to stop.
            progress: Show a progress bar that counts model calls.
            trajectory: Keep the states at all levels.
        """
        import torch

        from .noise import start

        if not callable(getattr(self.sampler, "run", None)):
            raise CapabilityError(
                f"{self.sampler!r} has no run(...); only samplers built on StepSampler do here"
            )
        job = self.job
        x = start(
            self.grid, self.like, self.path, x0=self.x0, noise=self.noise,
            variation_seed=job.variation_seed, variation_strength=job.variation_strength,
        )  # fmt: skip
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
                offload=job.offload,
                compile="run" if job.compile == "run" else False,  # a compiled model is part of the denoiser
            )
        if job.mask is not None:  # some samplers end a little above level 0
            result.x = self.denoiser.restored(result.x)
            if result.trajectory is not None:
                result.trajectory[-1] = result.x
        return result

    def memory(self) -> MemoryEstimate:
        """What the run will need at its peak; see `kdiff_core.memory`. Decoding is not counted.

        Raises:
            CapabilityError: The sampler has no plan, or the model reads values.
        """
        from attrs import evolve

        from .estimate import memory

        if self.job.compile:  # counted as it is before it is compiled
            return evolve(self.job, compile=False).setup(self.model).memory()
        plan = self.plan()
        if plan is None:
            raise CapabilityError(f"{self.sampler!r} has no plan, whose states could be counted")
        return memory(plan, self.like, self.denoiser, cond=self.cond, offload=self.job.offload)


def noise_range(
    model: Any, process: Any, sigma_min: float | None, sigma_max: float | None
) -> tuple[float | None, float | None]:
    """Return the range to give to a schedule: as given, else the process's (None), else the model's."""
    if process is not None:
        return sigma_min, sigma_max
    low = getattr(model, "sigma_min", None) if sigma_min is None else sigma_min
    high = getattr(model, "sigma_max", None) if sigma_max is None else sigma_max
    if high is None and getattr(model, "path", "ve") == "flow":
        high = 1.0
    return low, high


def at_least_one(name: str, value: Any, of_what: str) -> None:
    """Raise `ParameterError` unless a value is a whole number of at least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ParameterError(
            f"{name}={value!r}: the number of {of_what} must be a whole number of at least 1"
        )


def device_of(model: Any, device: str | None) -> Any:
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
        raise ParameterError(
            f"device={device!r} cannot be used here: {reason}; device='cpu' works"
        ) from error
    return torch.device(device)


def dtype_of(name: str) -> torch.dtype:
    """Return the floating-point dtype of a name."""
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ParameterError(f"dtype={name!r}: give 'float32', 'float64', 'bfloat16' or 'float16'")
    return found


def text_condition(model: Any, name: str, text: Any, n: int) -> dict[str, Any]:
    """Return the condition that asks for a text, or one for each sample, of a model that takes text.

    Args:
        model: The denoiser.
        name: What the text is, "prompt" or "negative".
        text: One for all, one for each, or None. Without a prompt there is no condition; a negative one of
            None is what the model takes for no text.
        n: Number of samples.

    Raises:
        ParameterError: The model takes no text, or needs one; or their number is wrong.
    """
    encode = getattr(model, "encode", None)
    if not callable(encode):
        if text is not None:
            raise ParameterError(f"{name}={text!r:.40}: the model takes no text; leave it out")
        return {}
    if text is None and name == "prompt":
        raise ParameterError("the model needs a text: give prompt= (--prompt); '' is none")
    texts = list(text) if isinstance(text, tuple) else [text] * n
    if len(texts) != n:
        raise ParameterError(f"{name}: {len(texts)} given for n={n} samples; give one text, or one for each")
    if wrong := [
        each for each in texts if not isinstance(each, str) and (each is not None or name == "prompt")
    ]:
        raise ParameterError(f"{name}={wrong[0]!r:.40}: give a text")
    found: dict[str, Any] = encode(texts)
    return found


def label_condition(model: Any, label: Any, n: int, device: Any) -> dict[str, Any]:
    """Return the condition that asks for a class, checked before the model is called."""
    if label is None:
        return {}
    import torch

    classes = getattr(model, "classes", None)
    if classes is None:
        raise ParameterError(f"label={label!r:.40}: the model has no classes; leave the label out")
    names = list(getattr(model, "class_names", None) or ())
    wanted = list(label) if isinstance(label, tuple) else [label] * n
    wanted = [names.index(value) if value in names else value for value in wanted]
    if len(wanted) != n:
        raise ParameterError(
            f"label: {len(wanted)} given for n={n} samples; give one number, or one for each"
        )
    for i, value in enumerate(wanted):
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < classes:
            where = f"label[{i}]" if isinstance(label, tuple) else "label"
            named = f", or {quoted(names, 'or')}" if names != [str(c) for c in range(len(names))] else ""
            raise ParameterError(f"{where}={value!r}: classes are 0 to {classes - 1}{named}, -1 is any")
    return {"label": torch.tensor(wanted, dtype=torch.int64, device=device)}
