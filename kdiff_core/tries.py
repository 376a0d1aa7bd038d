"""The one loop over the tries of an `AdaptiveSampler`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from .adaptive import AdaptiveSampler
from .draw import PathNoise
from .eager import EagerContext
from .errors import NonFiniteError, StepSizeError
from .job import Done, Job, Seen
from .numerics import Number
from .path import Path
from .state import Leaves, Nest, wide

# A remainder in log-SNR that is taken together with the step before it.
_REST = 1e-5
# Added to an error, which may be 0; and the largest inverse error that is remembered.
_TINY, _BEST = 1e-8, 1e4


@define
class _Control:
    """The steps of a sample, or of the batch.

    Attributes:
        start: Level that is tried from.
        end: Level that is tried for.
        h: Size of the next try in log-SNR.
        inverses: Inverse errors of the last two accepted steps.
        done: Whether the end of the last try is reached; the try is then repeated, and its result ignored.
        levels: Levels visited.
    """

    start: float
    h: float
    end: float = 0.0
    inverses: tuple[float, float] | None = None
    done: bool = False
    accepted: int = 0
    rejected: int = 0
    evaluations: int = 0
    levels: list[float] = field(factory=list)

    @property
    def level(self) -> float:
        """Level that is reached."""
        return self.levels[-1]

    def aim(self, path: Path, last: float) -> None:
        """Choose the end of the next try."""
        if self.done:
            return
        to = path.inner_lambda(self.start, last) + self.h
        self.end = last if to >= path.lambda_(last) - _REST else path.sigma(to)
        if not self.end < self.start:
            raise StepSizeError(
                f"the step size has shrunk to {self.h:.3g} in log-SNR at sigma={self.start:.6g}, where it no "
                "longer changes the level: the model jumps there, or rtol and atol ask for more than its "
                "precision; raise them"
            )

    def judge(self, sampler: AdaptiveSampler, error: float, last: float) -> bool:
        """Accept or reject a try by its error, and choose the size of the next."""
        if self.done:
            return False
        p, i, d, inverse = sampler.pcoeff, sampler.icoeff, sampler.dcoeff, 1.0 / (error + _TINY)
        self.inverses = newer, older = self.inverses or (inverse, inverse)
        # By its own error alone: a good step is not rejected because the one before was better.
        factor = _limited(inverse ** (1.0 / sampler.error_order))
        if factor < sampler.accept_safety:
            self.h *= factor
            self.rejected += 1
            return False
        powers = ((inverse, p + i + d), (newer, -(p + 2.0 * d)), (older, d))
        self.h *= _limited(math.prod(base ** (power / sampler.error_order) for base, power in powers))
        self.accepted += 1
        self.inverses = min(inverse, _BEST), newer
        self.levels.append(self.end)
        self.done = self.end == last
        if not self.done:
            self.start = self.end
        return True


class _TryContext(EagerContext):
    """The context of a try: noise is that of the run's path, and nothing is kept."""

    def __init__(self, job: Job, each: bool) -> None:
        super().__init__(job)
        self.each = each
        first = _vector([job.levels[0]] * (job.leaves[0].shape[0] if each else 1))
        self.path_noise = PathNoise(job.source, job.x, job.leaves, first)

    def wrap(self, leaves: Leaves) -> Any:
        """A state that takes a vector of numbers, where samples have steps of their own."""
        return Nest(self.job.x, leaves) if self.each else super().wrap(leaves)

    def begin(self, index: int) -> None:
        """Start a try."""
        self.index, self.grid, self.first = index, self.job.levels, None
        self.path_noise.begin()

    def widened(self, leaves: Leaves) -> Any:
        """A state in float32 at least: errors are differences for which half precision is too coarse."""
        return self.wrap([leaf.to(wide(leaf)) for leaf in leaves])

    def narrowed(self, state: Any) -> Leaves:
        """Its tensors in the run's own dtypes."""
        pairs = zip(self.unwrap(state), self.job.leaves, strict=True)
        return [leaf.to(own.dtype) for leaf, own in pairs]

    def _call(self, x: Any, sigma: Number, outputs: tuple[str, ...]) -> list[Any]:
        found = super()._call(self.wrap(self.narrowed(x)), sigma, outputs)
        return [self.widened(self.unwrap(output)) for output in found]

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        """Unit noise of an interval inside the try."""
        return self.wrap(self.path_noise(_vector(sigma_from), _vector(sigma_to), stream))

    def _evaluated(self, sigma: Number, denoised: Any) -> None:
        """There is no past that would want it."""


def adaptive_steps(job: Job) -> Iterator[Done]:
    """Run an adaptive sampler: yields the accepted steps, then the end."""
    run = _Run(job)
    if run.last < job.levels[0]:
        yield from run.descend()
    if job.levels[-1] == 0:
        job.step = index = job.total - 1
        run.ctx.begin(index)
        end = run.ctx.narrowed(run.ctx.denoise(run.reached, run.last))
        yield index, end, run.ctx.first or Seen(run.last, end, None)


class _Run:
    """The loop over tries."""

    def __init__(self, job: Job) -> None:
        assert isinstance(job.sampler, AdaptiveSampler)
        self.job, self.sampler = job, job.sampler
        self.ends = (0.0,) if job.levels[-1] == 0 else ()
        self.last = job.levels[-1 - len(self.ends)]
        self.each = self.sampler.per == "sample"
        count, first = job.leaves[0].shape[0] if self.each else 1, job.levels[0]
        self.controls = [_Control(first, self.sampler.h_init, levels=[first]) for _ in range(count)]
        self.ctx = _TryContext(job, self.each)
        self.reached = self.ctx.widened(job.leaves)
        self.levels = [first]
        self.tally()

    def descend(self) -> Iterator[Done]:
        """Try steps until all samples are at the last level above 0."""
        job, controls, last = self.job, self.controls, self.last
        x = lower = self.reached
        cost = 1
        while not all(control.done for control in controls):
            self.check_budget(cost)
            job.step, before = len(self.levels) - 1, job.evaluations
            x_next, x_lower, errors = self.tried(x, lower)
            cost = job.evaluations - before
            for control in controls:
                control.evaluations += 0 if control.done else cost
            taken = [c.judge(self.sampler, e, last) for c, e in zip(controls, errors, strict=True)]
            going = [t and not c.done for t, c in zip(taken, controls, strict=True)]
            self.ctx.path_noise.advance(torch.tensor(going, device="cpu"), _vector([c.end for c in controls]))
            if any(taken):
                x, lower = self.chosen(going, x_next, x), self.chosen(going, x_lower, lower)
                self.reached = self.chosen(taken, x_next, self.reached)
                self.levels.append(max(control.level for control in controls))
                self.tally()
                yield job.step, self.ctx.narrowed(self.reached), self.ctx.first

    def tried(self, x: Any, lower: Any) -> tuple[Any, Any, list[float]]:
        """A try and its errors."""
        for control in self.controls:
            control.aim(self.job.path, self.last)
        self.ctx.begin(self.job.step)
        levels = self.number([c.start for c in self.controls]), self.number([c.end for c in self.controls])
        x_next, x_lower = self.sampler.attempt(self.ctx, x, *levels)
        errors = self.errors(x_next, x_lower, lower)
        if not all(map(math.isfinite, errors)):
            self.job.checked = True
            self.sampler.attempt(self.ctx, x, *levels)  # the same once more, which raises at the place
            raise NonFiniteError(f"the estimated error is NaN or infinite in {self.job.where()}")
        return x_next, x_lower, errors

    @torch.no_grad()
    def errors(self, x_next: Any, x_lower: Any, before: Any) -> list[float]:
        """Root mean square of the difference in units of the tolerance: of each sample, or of the batch."""
        rtol, atol, parts = self.sampler.rtol, self.sampler.atol, []
        for new, low, old in zip(*map(self.ctx.unwrap, (x_next, x_lower, before)), strict=True):
            scale = torch.maximum(low.abs(), old.abs()).mul_(rtol).clamp_(min=atol)
            squares = ((new - low) / scale).square_()
            parts.append(_row_sums(squares.flatten(1)) if self.each else squares.sum()[None])
        totals = torch.stack([part.to(parts[0].dtype) for part in parts]).sum(0).tolist()
        count = sum(leaf.numel() for leaf in self.job.leaves) / (len(totals) if self.each else 1)
        return [math.sqrt(total / count) for total in totals]

    def chosen(self, taken: Sequence[bool], new: Any, old: Any) -> Any:
        """The new state of the samples that are taken, the old one of the others."""
        if all(taken) or not any(taken):
            return new if taken[0] else old
        mask = torch.tensor(taken, device=self.job.leaves[0].device)
        pairs = zip(new.leaves, old.leaves, strict=True)
        return self.ctx.wrap([torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs])

    def number(self, values: Sequence[float]) -> Number:
        """Levels as a try takes them."""
        return _vector(values) if self.each else values[0]

    def check_budget(self, cost: int) -> None:
        """Refuse to go beyond the bound on model calls."""
        job, most = self.job, self.sampler.max_evaluations
        if job.evaluations + cost + len(self.ends) > most:
            behind = sum(not control.done for control in self.controls)
            who = f"{behind} of {len(self.controls)} samples are" if self.each else "the run is"
            raise StepSizeError(
                f"max_evaluations={most} model calls do not suffice: {who} above sigma={self.last:.6g}, the "
                f"highest at {self.levels[-1]:.6g}; raise max_evaluations, rtol or atol"
            )

    def tally(self) -> None:
        """Say what was done so far."""
        on = [self.last] if self.last < self.levels[-1] else []
        self.job.levels = (*self.levels, *on, *self.ends)
        info, controls = self.job.info, self.controls
        info["levels"] = self.job.levels
        accepted, rejected = [c.accepted for c in controls], [c.rejected for c in controls]
        info["accepted"], info["rejected"] = (accepted, rejected) if self.each else (accepted[0], rejected[0])
        if self.each:
            info["sample_evaluations"] = [c.evaluations + len(self.ends) for c in controls]
            info["sample_levels"] = [(*c.levels, *self.ends) for c in controls]


def _row_sums(rows: Tensor) -> Tensor:
    """Sums of rows ``(B, n)`` by halves: the bits of a kernel for sums may depend on their number."""
    while (count := rows.shape[1]) > 1:
        half = count // 2
        rest = rows[:, 2 * half :]
        rows = torch.cat([rows[:, :half] + rows[:, half : 2 * half], rest], 1)
    return rows[:, 0]


def _limited(factor: float) -> float:
    """A factor of the step, drawn smoothly into the range of 0.21 to 2.57."""
    return 1.0 + math.atan(factor - 1.0)


def _vector(levels: Number | Sequence[float]) -> Tensor:
    """Levels of all samples, or that of the batch, on the host."""
    return torch.as_tensor(levels, dtype=torch.float64, device="cpu").reshape(-1)
