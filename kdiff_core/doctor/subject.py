"""`Subject`: a run that is examined; what several checks need is made once."""

from __future__ import annotations

import math
import os
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from ..begin import known_of
from ..errors import NonFiniteError
from ..grid import Grid
from ..noise import start
from ..path import Path, as_path
from ..result import Result
from ..sample_job import SampleJob

FEW = 4  # samples of the runs that examine
# How far data reach from 0, in standard deviations, where a model does not say.
REACH = 5.0


class Subject:
    """A run that is examined.

    Args:
        job: The run.
        given: Real data; see `kdiff_core.doctor.examine_run`.

    Attributes:
        setup: Of the run as it is asked for.
        few: Of the same with a few samples, which is what is run.
    """

    def __init__(self, job: SampleJob, given: Any = None) -> None:
        self.setup = job.setup()
        few = min(job.n, FEW)
        self.few = self.setup if few == job.n else evolve(job, n=few, **_first(job, few)).setup()
        self.given = None if given is None else known_of(self.model, given, None, self.few.like).x0

    @property
    def model(self) -> Any:
        """The model, not guided."""
        return self.few.model

    @property
    def path(self) -> Path:
        """The model's path."""
        return as_path(self.few.path)

    @property
    def trained(self) -> tuple[float, float] | None:
        """Lowest and highest level that the model was made for, if it says."""
        of = getattr(self.model, "process", None) or self.model
        low, high = getattr(of, "sigma_min", None), getattr(of, "sigma_max", None)
        return None if low is None or high is None else (float(low), float(high))

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels above 0."""
        return tuple(level for level in self.few.grid if level > 0)

    @property
    def reach(self) -> float:
        """The largest value that the model's data have, about."""
        values = getattr(self.model, "value_range", None)
        if values is not None and not callable(getattr(self.model, "decode", None)):
            return max(abs(float(value)) for value in values)
        return REACH * float(getattr(self.model, "sigma_data", 1.0))

    @cached_property
    def modules(self) -> list[nn.Module]:
        """The networks in the model."""
        places = (self.model, *(getattr(self.model, n, None) for n in ("network", "unet", "transformer")))
        return [place for place in places if isinstance(place, nn.Module)]

    @cached_property
    def attempt(self) -> Result | NonFiniteError:
        """The run, with the states at all levels; or why it stopped."""
        try:
            return self.few.run(trajectory=True)
        except NonFiniteError as error:
            return error

    @property
    def result(self) -> Result | None:
        """The run, unless it stopped."""
        return None if isinstance(self.attempt, NonFiniteError) else self.attempt

    @cached_property
    def data(self) -> Tensor | None:
        """Data for the model: those given, else samples; None if there are none or they are far from data."""
        if self.given is not None:
            return self.given.expand_as(self.few.like)
        if self.result is None or not bool(self.result.x.isfinite().all()):
            return None
        x: Tensor = self.result.x
        return x if rms(x) <= 10 * self.reach else None

    @property
    def guided(self) -> bool:
        """Whether there is guidance."""
        return self.few.job.guide is not None or self.few.job.guidance not in (None, 1.0)

    @property
    def deterministic(self) -> bool:
        """Whether the sampler adds no noise, so that its results can be compared."""
        return not self.few.sampler.stochastic

    def run(self, **changes: Any) -> Tensor | None:
        """Run with changes to the setup, and return the samples; None if they are not finite."""
        try:
            x: Tensor = self.few._replace(**changes).run().x
        except NonFiniteError:
            return None
        return x

    @cached_property
    def finer(self) -> Tensor | None:
        """The samples with every step in two."""
        return self.run(grid=halved(self.few.grid))

    def noisy(self, sigma: float, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return data with noise of a level, and that level for each sample."""
        noise = start(Grid.of([1.0, 0.0]), torch.zeros_like(data), "ve", noise=self.few.noise)
        x = self.path.alpha(sigma) * data + sigma * noise
        return x, torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)

    def denoise(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the model's output, not guided, under the run's conditions unless others are given."""
        with torch.no_grad():
            found: Tensor = self.model(x, sigma, **(cond or self.few.cond))
        return found


def _first(job: SampleJob, few: int) -> dict[str, Any]:
    """Of what is given for each sample, the first."""
    names = ("seed", "index", "label", "prompt", "negative", "variation_seed")
    given = {name: getattr(job, name) for name in names}
    return {name: value[:few] for name, value in given.items() if isinstance(value, tuple)}


def halved(grid: Grid) -> Grid:
    """Return a grid with every step in two, at the geometric mean of its ends; not the step to 0."""
    levels: list[float] = [grid[0]]
    for sigma, sigma_next in pairwise(grid):
        levels += [math.sqrt(sigma * sigma_next), sigma_next] if sigma_next > 0 else [sigma_next]
    return Grid.of(levels)


def rms(x: Tensor) -> float:
    """Return the root of the mean square, in float64."""
    return float(x.double().square().mean().sqrt())


def apart(a: Tensor, b: Tensor) -> float:
    """Return how far `a` is from `b`, as a part of `b`'s size; infinite where `a` is not finite."""
    distance = rms(a.double() - b.double()) / max(rms(b), 1e-12)
    return distance if math.isfinite(distance) else math.inf


def free_bytes(device: torch.device) -> int | None:
    """Return a device's free memory, or None if that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # what can be freed counts too
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE")
        known = all(name in getattr(os, "sysconf_names", {}) for name in names)
        return os.sysconf(names[0]) * os.sysconf(names[1]) if known else None
