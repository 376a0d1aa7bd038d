"""The last steps: of lower order, Euler's, an extrapolated end, a level left out; for any solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core import Grid, Path, Point, Process, StepContext, StepSampler, get_sampler
from kdiff_core.context import InnerContext
from kdiff_core.numerics import Number, lagrange_weights
from kdiff_core.parameters import one_of, whole

from .wrapped import Wrapped, cannot, chain, check_evaluates

LOWERED = "by choice the last step, which is measured, is of order 1"
FEW = 15  # steps, below which a host lowers the order


def _has_history(instance: LowerOrderFinal, attribute: Attribute[Any], solver: StepSampler) -> None:
    if any(hasattr(one, "lower_order_final") for one in chain(solver)):
        raise cannot(instance, solver, "has the parameter lower_order_final itself")
    if not solver.memory:
        raise cannot(instance, solver, "reads no earlier point: there is no history to cut")


def _orders_that_fall(solver: StepSampler) -> dict[str, str]:
    """What a last step of order 1 breaks."""
    orders = {"one_step_order": solver.order}
    if solver.order_smooth != solver.order:
        orders["one_step_order_smooth"] = solver.order_smooth
    return {law: LOWERED for law, order in orders.items() if order > 1}


@frozen
class LowerOrderFinal(Wrapped):
    """A multistep solver whose order is at most the number of steps that are left.

    The last steps are longer than those before, and extrapolation over them may overshoot. Lu et al. 2022,
    arXiv:2211.01095, advise it for few steps. A step sees fewer earlier points, as on the first steps, so one
    that goes to 0 itself ends with D. The error of the last step is of order 1, that of a run at most of
    order 2.

    Attributes:
        solver: The solver, a sampler or its name, with a memory.
        lower_order_final: ``"always"``; ``"few"``, in runs of fewer than 15 steps, as diffusers does;
            ``"zero"``, on grids that end in 0; or ``"never"``, the solver itself.
    """

    solver: StepSampler = field(default="dpmpp_3m", converter=get_sampler, validator=_has_history)
    lower_order_final: str = field(default="always", validator=one_of("always", "few", "zero", "never"))

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and the order of a last step."""
        lowered = self.lower_order_final in ("always", "few")
        return {**self.solver.known_failures, **(_orders_that_fall(self.solver) if lowered else {})}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step on a history that is cut."""
        lowers = {"always": True, "few": len(ctx.grid) - 1 < FEW, "zero": ctx.grid[-1] == 0, "never": False}
        if lowers[self.lower_order_final]:
            ctx = InnerContext(ctx, ctx.steps_left - 1)
        return ctx.advance(self.solver, x, sigma, sigma_next)


@frozen
class EulerAtEnd(Wrapped):
    """The last steps are Euler's, whatever the solver.

    They are deterministic, exact for a constant D and the same on every path, of order 1 each; a run has an
    order of at most 2. Community practice (diffusers 2023, ``euler_at_final``) against artefacts of
    extrapolation at the end. A step into 0 counts: it is D.

    Attributes:
        solver: The solver, a sampler or its name.
        euler_at_end: Number of Euler steps; 0 is the solver itself.
    """

    solver: StepSampler = field(default="dpmpp_2m", converter=get_sampler, validator=check_evaluates)
    euler_at_end: int = field(default=1, validator=whole(0))

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, the order of a last step, and that of a run whose solver has more than 2."""
        if not self.euler_at_end:
            return self.solver.known_failures
        broken = _orders_that_fall(self.solver)
        if self.solver.order > 2:
            law = "output_distribution" if self.stochastic else "global_order"
            broken |= {law: "a last step of order 1 leaves a run order 2"} if not self.memory else {}
        return {**self.solver.known_failures, **broken}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Euler's step, or the solver's."""
        if ctx.steps_left > self.euler_at_end or sigma_next > sigma:  # a restart only adds noise
            return ctx.advance(self.solver, x, sigma, sigma_next)
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


class _Listening(InnerContext):
    """Hears whether a step draws noise."""

    def __init__(self, ctx: StepContext, points: int) -> None:
        super().__init__(ctx, points)
        self.noisy = False

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        """The run's noise."""
        self.noisy = True
        return super().noise(sigma_from, sigma_to, stream)


@frozen
class ExtrapolatedEnd(Wrapped):
    """Ends in the denoiser's outputs extrapolated to 0, in place of the last one.

    ``D(x, sigma)`` at the last level above 0 misses the end of the trajectory by O(r^2), r being noise over
    signal there, which on fine grids is more than the error of a good solver. Where the data have a density,
    the outputs along a trajectory are a function of r^2 near 0: the polynomial in r^2 through the last n of
    them, at 0, has an end of order 2 n in r, for the same evaluations. (In r itself, two outputs leave the
    error as large as it was.) It is Richardson's extrapolation (Richardson 1911). Steps have the solver's
    order.

    Steps with noise are not reached over, since the outputs before them belong to another trajectory: a
    sampler with noise in its last step ends as it does alone.

    Attributes:
        solver: The solver, a sampler or its name.
        extrapolated_end: Number of outputs used, 1 to 4; 1 is the solver itself.
    """

    solver: StepSampler = field(default="heun", converter=get_sampler, validator=check_evaluates)
    extrapolated_end: int = field(default=2, validator=one_of(1, 2, 3, 4))

    reaches_zero = True

    @property
    def memory(self) -> int:
        """The solver's, or the outputs but the newest."""
        return max(self.solver.memory, self.extrapolated_end - 1)

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and a memory that steps above 0 do not need."""
        if self.memory == self.solver.memory:
            return self.solver.known_failures
        why = "only the step into 0 reads the outputs, and the law takes none"
        return {**self.solver.known_failures, "memory_is_enough_and_needed": why}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step, or the extrapolated end."""
        past = self._smooth(ctx) if sigma_next == 0 else []
        if not past:
            inner = _Listening(ctx, self.solver.memory)
            after = inner.advance(self.solver, x, sigma, sigma_next)
            ctx.keep(noisy=inner.noisy)
            return after
        outputs = [ctx.denoise(x, sigma), *(point.denoised for point in past)]
        squares = [ctx.path.ratio(level) ** 2 for level in (sigma, *(point.sigma for point in past))]
        value_at_0 = [1.0, *(0.0 for _ in past)]  # of the powers
        weights = lagrange_weights(squares, value_at_0)
        return sum(output * weight for output, weight in zip(outputs, weights, strict=True))

    def _smooth(self, ctx: StepContext) -> list[Point]:
        """The newest points from which the state came here without noise."""
        return list(takewhile(lambda p: not p.noisy, ctx.finite_past[: self.extrapolated_end - 1]))


@frozen
class DiscardPenultimate(Wrapped):
    """Leaves the last level but one out of the grid; of the solver's order.

    A practice of hosts (AUTOMATIC1111 2022) for samplers that would take a very small step before the one
    into 0. A host asks its schedule for one more step than its user wants, so that the number of steps stays;
    here the grid is taken as given and the run has one step fewer. A grid of one step is left as it is.

    Attributes:
        solver: The solver, a sampler or its name.
        discard_penultimate: False is the solver itself.
    """

    solver: StepSampler = field(default="dpm2", converter=get_sampler)
    discard_penultimate: bool = field(default=True, validator=one_of(True, False))

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The solver's levels on the shorter grid."""
        if self.discard_penultimate and len(grid) > 2:
            levels = tuple(grid)
            grid = Grid.of([*levels[:-2], levels[-1]])
        return self.solver.prepare(grid, path, process)
