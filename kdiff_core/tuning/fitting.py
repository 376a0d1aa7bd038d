"""Fitting parameters by gradient, with early stopping on the validation split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CapabilityError, GridError, NonFiniteError, PlanError
from ..plans import Plan
from .lessons import Lessons, distance
from .tuned import TunedSampler
from .weights import follow, settled

# Iterations between two looks at the validation split.
LOOK_EVERY = 5
# By how much the validation error has to fall for a look to count as progress.
PROGRESS = 1e-3
# Below this part of the median error at the beginning, less hardly counts: otherwise a few starts whose
# error happens to cross 0 govern the loss, and the search ends in the nearest hollow.
FLOOR = 0.1
# Step of the difference quotient that the gradient is compared with, in float64 and in less; and how far
# the two may be apart.
STEP, COARSE_STEP, AGREEMENT = 1e-6, 1e-4, 0.2


class Fitted(NamedTuple):
    """What a fit came to: the plan that was best on validation, its error there, and how long it took."""

    plan: Plan
    error: float
    iterations: int
    stopped_early: bool


def fit(
    build: Callable[[], Plan],
    parameters: list[Tensor],
    lessons: Lessons,
    *,
    iterations: int,
    patience: int,
    label: str = "tune",
    progress: bool = False,
) -> Fitted:
    """Change parameters so that a plan comes nearer to the teacher.

    The loss is the mean over the training starts of the logarithm of the error (above a floor), which a few
    starts that no plan gets right do not govern. L-BFGS (Liu and Nocedal 1989) on all of them.

    Args:
        build: Makes the plan of the parameters' values.
        parameters: Leaves that require a gradient, float64, on the host.
        lessons: What to learn.
        iterations: Most iterations.
        patience: Looks at the validation split without progress after which to stop.
        label: For the progress bar.
        progress: Show one.

    Raises:
        CapabilityError: The denoiser passes no gradient on, or a wrong one.
    """
    from tqdm.auto import tqdm

    loss = _Loss(build, parameters, lessons)
    loss.check()
    search = torch.optim.LBFGS(
        parameters,
        max_iter=LOOK_EVERY,
        history_size=20,
        tolerance_grad=1e-10,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    best, waited, done = Fitted(*_look(build, lessons), 0, False), 0, 0
    with tqdm(total=iterations, desc=label, unit="iteration", disable=not progress) as bar:
        while done < iterations and waited < patience:
            search.step(loss)  # type: ignore[no-untyped-call]
            done += LOOK_EVERY
            bar.update(LOOK_EVERY)
            try:
                plan, error = _look(build, lessons)
            except (GridError, NonFiniteError, PlanError):  # it went astray; the best there was is kept
                break
            waited = 0 if error < best.error * (1 - PROGRESS) else waited + 1
            if error < best.error:
                best = Fitted(plan, error, done, False)
            bar.set_postfix(validation=f"{best.error:.3g}")
    return best._replace(iterations=done, stopped_early=done < iterations)


def _look(build: Callable[[], Plan], lessons: Lessons) -> tuple[Plan, float]:
    """The plan as it stands, and its error on the validation split."""
    with torch.no_grad():
        plan = settled(build())
    return plan, lessons.error(TunedSampler(plan), plan.levels, "validation")


class _Loss:
    """The loss over the training starts, and its gradient, chunk by chunk."""

    def __init__(self, build: Callable[[], Plan], parameters: list[Tensor], lessons: Lessons) -> None:
        self.build, self.parameters, self.lessons = build, parameters, lessons
        with torch.no_grad():
            plan = settled(build())
        self.floor = FLOOR * lessons.error(TunedSampler(plan), plan.levels, "train")

    def __call__(self) -> Tensor:
        """The loss; its gradient is left at the parameters."""
        for parameter in self.parameters:
            parameter.grad = None
        return self.value(backward=True)

    def value(self, backward: bool = False) -> Tensor:
        """The loss."""
        train, total = self.lessons.train, torch.zeros((), dtype=torch.float64)
        for part in train.chunks(self.lessons.batch):
            errors = distance(follow(self.build(), self.lessons.denoiser, part), part.target).double()
            share = (errors.square() + self.floor**2 + 1e-300).log().sum().cpu() / (2 * len(train.x))
            if backward:
                self.require(share.requires_grad)
                self.add_gradient(share)
            total = total + share.detach()
        return total

    def add_gradient(self, share: Tensor) -> None:
        """Add the gradient of a chunk's share, to the parameters alone: the model's own keep theirs."""
        found = torch.autograd.grad(share, self.parameters, allow_unused=True)
        self.require(any(gradient is not None for gradient in found))
        for parameter, gradient in zip(self.parameters, found, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def require(self, tied: bool, why: str = "its output does not depend on its input by a gradient") -> None:
        if not tied:
            name: Any = self.lessons.facts["denoiser"]["name"]
            raise CapabilityError(
                f"the denoiser {name} cannot be tuned through by gradient: {why}; "
                "tune the grid with method='dynamic', which only calls it"
            )

    def check(self) -> None:
        """Compare the gradient with a difference: a denoiser that makes a float of sigma would cut it."""
        self()
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters]
        size = torch.cat([s.flatten() for s in slopes]).norm()
        self.require(bool(size.isfinite()), f"the gradient's size is {float(size)}")
        if size == 0:
            return
        step = STEP if self.lessons.train.x.dtype == torch.float64 else COARSE_STEP
        start, ends = [p.detach().clone() for p in self.parameters], []
        with torch.no_grad():
            for move in (step, -step, 0.0):
                for parameter, first, slope in zip(self.parameters, start, slopes, strict=True):
                    parameter.copy_(first + move * slope / size)
                ends.append(float(self.value()) if move else 0.0)
        found = (ends[0] - ends[1]) / (2 * step)
        self.require(
            abs(found - float(size)) <= AGREEMENT * abs(float(size)),
            f"along its gradient of size {float(size):.3g} the loss changes by {found:.3g}; does it make a "
            "number of sigma, or round to less than its dtype says?",
        )
