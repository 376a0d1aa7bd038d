"""`Lessons`: states to start from and where a teacher's fine run takes each, split three ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from attrs import frozen
from torch import Tensor

from ..errors import CapabilityError, ParameterError
from ..grid import Grid
from ..lookup import get_denoiser, get_sampler, get_schedule
from ..noise import KeyedNoise, start
from ..path import as_path
from ..setup import at_least_one, device_of, dtype_of, noise_range

if TYPE_CHECKING:
    from ..protocols import Process

SPLITS = ("train", "validation", "held_out")


class Split(NamedTuple):
    """Some of the starts: states ``(B, ...)`` at the first level, where they belong, and conditions."""

    x: Tensor
    target: Tensor
    cond: dict[str, Any]

    def chunks(self, size: int) -> Iterator[Split]:
        """Yield parts of at most `size` samples."""
        count = len(self.x)
        for i in range(0, count, size):
            part = slice(i, i + size)
            yield Split(self.x[part], self.target[part], _part(self.cond, count, part))


@frozen(eq=False)
class Lessons:
    """What a solver of few steps is to learn from a teacher, and by what it is judged.

    It is made once, by `Lessons.of`, and serves any number of tunings. Parameters are fitted on `train`; when
    to stop, and whether to keep them at all, is decided on `validation`; `held_out` is for the report alone.

    Attributes:
        denoiser: The model.
        path: ``"ve"`` or ``"flow"``.
        process: What the model was trained on, or None.
        sigma_min: Lowest level that a tuned grid may have above 0.
        sigma_max: First level of all grids.
        train: Starts that parameters are fitted on.
        validation: Starts that choose.
        held_out: Starts that report.
        batch: Most samples in one model call.
        facts: JSON-able: how the lessons were made.
    """

    denoiser: Any
    path: str
    process: Process | None
    sigma_min: float
    sigma_max: float
    train: Split
    validation: Split
    held_out: Split
    batch: int
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        denoiser: Any,
        *,
        starts: Sequence[int] = (256, 128, 256),
        seed: int = 0,
        teacher: Any = "dpmpp_2m",
        teacher_schedule: Any = "karras",
        teacher_steps: int = 400,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
        shape: Sequence[int] | None = None,
        cond: Mapping[str, Any] | None = None,
        dtype: Any = "float64",
        device: Any = None,
        batch: int = 256,
        progress: bool = False,
    ) -> Lessons:
        """Run the teacher from fresh noise.

        Args:
            denoiser: The model, or its name.
            starts: Numbers of starts to train on, to validate with and to hold out.
            seed: Seed of the noise; the splits are samples 0, 1, ... of it, in that order.
            teacher: A deterministic sampler, or its name.
            teacher_schedule: The teacher's schedule, or its name.
            teacher_steps: Its number of steps.
            sigma_min: Lowest level above 0. Default: the process's, else the model's.
            sigma_max: Highest level. Default: likewise.
            process: What the model was trained on. Default: its attribute ``process``.
            shape: Shape of a sample. Default: the model's ``sample_shape``.
            cond: Conditions of the model; tensors with one entry for each start are split with them.
            dtype: Of the states. float64 unless the model takes float32 alone.
            device: Where to run. Default: where the model is.
            batch: Most samples in one model call.
            progress: Show the teacher's progress.

        Raises:
            ParameterError: An argument is missing or out of its range.
            CapabilityError: The teacher draws noise.
        """
        model, counts = get_denoiser(denoiser), _counts(starts)
        where = device_of(model, device)
        if isinstance(denoiser, str) and callable(getattr(model, "to", None)):
            model = model.to(where)
        at_least_one("teacher_steps", teacher_steps, "steps")
        at_least_one("batch", batch, "samples in a call")
        process = process if process is not None else getattr(model, "process", None)
        low, high = _range(model, process, sigma_min, sigma_max)
        path = as_path(getattr(model, "path", "ve")).name
        sampler, schedule = get_sampler(teacher), get_schedule(teacher_schedule)
        deterministic(sampler)
        grid = schedule(teacher_steps, sigma_min=low, sigma_max=high, process=process)
        like = torch.empty(
            (sum(counts), *_shape(model, shape)),
            dtype=dtype_of(_name(dtype)),
            device=where,
        )
        x = start(grid, like, path, noise=KeyedNoise(seed))
        whole = Split(x, x, dict(cond or {}))
        with torch.no_grad():
            targets = [
                sampler(model, part.x, grid, cond=part.cond, process=process, progress=progress)
                for part in whole.chunks(batch)
            ]
        whole = whole._replace(target=torch.cat(targets))
        facts = {
            "denoiser": _described(denoiser, model),
            "path": path,
            "range": [low, high],
            "process": None if process is None else repr(process),
            "starts": dict(zip(SPLITS, counts, strict=True)),
            "seed": seed,
            "teacher": {"sampler": repr(sampler), "schedule": repr(schedule), "steps": grid.steps},
            "dtype": _name(dtype),
        }
        train, validation, held_out = _split(whole, counts)
        return cls(model, path, process, low, grid[0], train, validation, held_out, batch, facts)

    def errors(self, sampler: Any, grid: Any, split: str) -> Tensor:
        """Return each sample's error ``(B,)``: the root mean square of its difference from the teacher's.

        Args:
            sampler: A deterministic sampler.
            grid: Levels, the first `sigma_max`.
            split: ``"train"``, ``"validation"`` or ``"held_out"``.
        """
        found = []
        with torch.no_grad():
            for part in getattr(self, split).chunks(self.batch):
                end = sampler(self.denoiser, part.x, grid, cond=part.cond, process=self.process)
                found.append(distance(end, part.target))
        return torch.cat(found)

    def error(self, sampler: Any, grid: Any, split: str) -> float:
        """Return the median over the samples of `errors`."""
        return float(self.errors(sampler, grid, split).median())


def distance(x: Tensor, target: Tensor) -> Tensor:
    """Root mean square of each sample's difference, ``(B,)``."""
    return (x - target).flatten(1).square().mean(1).sqrt()


def deterministic(sampler: Any) -> None:
    """Refuse a sampler that draws noise.

    Raises:
        CapabilityError: It is stochastic, so that it has no one result to compare.
    """
    if sampler.stochastic:
        raise CapabilityError(
            f"{sampler!r} draws noise, so that a start has no one result to compare with a teacher's; tune a "
            "deterministic sampler such as 'dpmpp_2m'"
        )


def _counts(starts: Sequence[int]) -> tuple[int, int, int]:
    counts = tuple(starts) if isinstance(starts, Sequence) else ()
    if len(counts) != 3 or not all(type(count) is int and count > 0 for count in counts):
        raise ParameterError(
            f"starts={starts!r}: give three whole numbers of at least 1: to train on, to validate with, and "
            "to hold out"
        )
    return counts[0], counts[1], counts[2]


def _range(model: Any, process: Any, low: float | None, high: float | None) -> tuple[float, float]:
    """The range of levels: as given, else the process's, else the model's."""
    if process is not None:
        low, high = (
            own if given is None else given
            for given, own in ((low, process.sigma_min), (high, process.sigma_max))
        )
    low, high = noise_range(model, None, low, high)
    missing = [name for name, value in (("sigma_min", low), ("sigma_max", high)) if value is None]
    if low is None or high is None:
        raise ParameterError(
            f"{' and '.join(missing)}: the model does not say its range of levels; give them"
        )
    Grid.of([high, low])
    return float(low), float(high)


def _shape(model: Any, shape: Sequence[int] | None) -> tuple[int, ...]:
    found = getattr(model, "sample_shape", None) if shape is None else shape
    if found is None:
        raise ParameterError(
            "shape: the model does not say a sample's shape (sample_shape); give shape=(...)"
        )
    return tuple(found)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _part(cond: Mapping[str, Any], count: int, part: slice) -> dict[str, Any]:
    """The conditions of some of the samples."""
    return {
        key: value[part] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
        for key, value in cond.items()
    }


def _split(whole: Split, counts: Sequence[int]) -> list[Split]:
    found, first, total = [], 0, len(whole.x)
    for count in counts:
        part = slice(first, first + count)
        found.append(Split(whole.x[part], whole.target[part], _part(whole.cond, total, part)))
        first += count
    return found


def _described(given: Any, model: Any) -> dict[str, Any]:
    """What the model was, as far as it can be told."""
    name = given if isinstance(given, str) else getattr(model, "name", None) or type(model).__name__
    return {"name": str(name), "is": f"{model!r:.200}", "data_sha256": getattr(model, "data_sha256", None)}
