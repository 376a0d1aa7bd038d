"""The first steps: a high-order start of multistep solvers, and a first evaluation without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core import Grid, Path, Prediction, Process, StepContext, StepSampler, get_sampler
from kdiff_core.context import InnerContext
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import Number, sqrt
from kdiff_core.parameters import one_of, positive
from kdiff_core.sampler import check_one_step

from .wrapped import Wrapped, cannot, chain, check_evaluates, has


class _Shared(InnerContext):
    """Two solvers take the same step, and share the evaluation of its start."""

    def __init__(self, ctx: StepContext, x: Any, sigma: Number) -> None:
        super().__init__(ctx)
        self._start, self._level = x, sigma
        self._known: Any = None

    def denoise(self, x: Any, sigma: Number) -> Any:
        """The output; of the step's start the one that is known."""
        if x is not self._start or sigma != self._level:
            return super().denoise(x, sigma)
        if self._known is None:
            self._known = super().denoise(x, sigma)
        self._evaluated(sigma, self._known)
        return self._known


def _multistep(instance: StartSolver, attribute: Attribute[Any], solver: StepSampler) -> None:
    if not solver.memory:
        raise cannot(instance, solver, "reads no earlier point: it needs no other start")
    if solver.stochastic:
        raise cannot(instance, solver, "draws noise itself; its order in distribution is that of its steps")


def _fits(instance: StartSolver, attribute: Attribute[Any], start: StepSampler) -> None:
    if start.order < instance.solver.order - 1:
        raise ParameterError(
            f"StartSolver: start_solver={start!r} is of order {start.order}; for a run of order "
            f"{instance.solver.order} take one of at least {instance.solver.order - 1}"
        )


@frozen
class StartSolver(Wrapped):
    """A multistep solver whose first steps, while its history is incomplete, are taken by a one-step solver.

    The classical start of multistep methods (Hairer, Norsett, Wanner 1993, "Solving Ordinary Differential
    Equations I", section III.1). A multistep solver alone begins with a step of order 1, which leaves a whole
    run order 2. Behind steps of order ``p - 1`` a solver of order p has order p over a run. The solver sees
    the first steps too, and keeps what it keeps; the evaluation of a step's start is shared, any others that
    the solver makes come on top.

    Attributes:
        solver: The multistep solver, a sampler or its name, without noise.
        start_solver: The deterministic one-step solver that takes the first steps.
    """

    solver: StepSampler = field(default="lms", converter=get_sampler, validator=[_multistep, check_evaluates])
    start_solver: StepSampler = field(
        default="res_3s", converter=get_sampler, validator=[check_one_step, check_evaluates, _fits]
    )

    @property
    def linear(self) -> bool:
        """Whether both are."""
        return self.solver.linear and self.start_solver.linear

    @property
    def path_invariant(self) -> bool:
        """Whether both are."""
        return self.solver.path_invariant and self.start_solver.path_invariant

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The solver's levels.

        Raises:
            ParameterError: The start solver visits others.
        """
        levels = self.solver.prepare(grid, path, process)
        wanted = Grid.of(levels)
        if tuple(self.start_solver.prepare(wanted, path, process)) != tuple(wanted):
            raise ParameterError(f"StartSolver: start_solver={self.start_solver!r} visits levels of its own")
        return levels

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The one-step solver's step, of which the solver sees the beginning; or the solver's."""
        first = self.solver.memory + (ctx.alpha(ctx.grid[0]) == 0)  # no history reaches into pure noise
        if ctx.index >= first or sigma_next == 0:
            return ctx.advance(self.solver, x, sigma, sigma_next)
        shared = _Shared(ctx, x, sigma)
        after = shared.advance(self.start_solver, x, sigma, sigma_next)
        shared.advance(self.solver, x, sigma, sigma_next)  # for what it keeps
        ctx.keep(x=x)  # a corrector's state would be of low order
        return after


class _Analytic(InnerContext):
    """Answers the first evaluation of a step without the model."""

    def __init__(self, ctx: StepContext, modifier: AnalyticStart) -> None:
        super().__init__(ctx)
        self._modifier: AnalyticStart | None = modifier

    def denoise(self, x: Any, sigma: Number) -> Any:
        """The output."""
        if self._modifier is None:
            return super().denoise(x, sigma)
        output = x * self._modifier.weight(self.alpha(sigma), sigma)
        self._modifier = None
        self._evaluated(sigma, output)
        return output

    def predict(self, x: Any, sigma: Number) -> Prediction:
        """The outputs; without the model there is one, whatever the condition."""
        if self._modifier is None:
            return super().predict(x, sigma)
        output = self.denoise(x, sigma)
        return Prediction(output, output, output)


@frozen
class AnalyticStart(Wrapped):
    """The first evaluation of a run is worked out in place of the model's, which saves one.

    Analytical first step: Dockhorn et al. 2022, arXiv:2210.05475; Zhou et al. 2023, arXiv:2312.00094. In
    nearly pure noise the data are as good as normal, of mean 0 and standard deviation s. ``"posterior"``
    takes their mean given the state, ``D = alpha s^2 x / q^2`` with ``q^2 = alpha^2 s^2 + sigma^2``: on VE
    the slope ``(x - D) / sigma`` is ``sigma x / (s^2 + sigma^2)``, exact for such data. The papers take the
    state, scaled to variance 1, for its noise, ``eps = x / q``: ``D = alpha s^2 x / (q (q + sigma))``, which
    is half as large at high levels and not exact for any data. Both tend to 0 as sigma grows; at sigma = 80
    they differ by 1e-4 of the state. A step into 0 is the model's. The first step has order 0, the others
    the solver's.

    Attributes:
        solver: The solver, a sampler or its name.
        analytic_start: False is the solver itself.
        sigma_data: Standard deviation of the data, s.
        analytic_form: ``"posterior"``, or ``"noise"`` as the papers have it.
    """

    solver: StepSampler = field(default="euler", converter=get_sampler)
    analytic_start: bool = field(default=True, validator=one_of(True, False))
    sigma_data: float = field(default=1.0, converter=float, validator=positive, metadata={"unit": "sigma"})
    analytic_form: str = field(default="posterior", validator=one_of("posterior", "noise"))

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what data break that are not those of the first evaluation."""
        if not self.analytic_start:
            return self.solver.known_failures
        why = "the first evaluation is that of normal data of mean 0, whatever the model"
        broken = ["constant_denoiser_is_exact", "shift_equivariance", "exact_in_many_steps"]
        *_, innermost = chain(self.solver)
        if innermost.memory or not self.memory:  # else the step that is measured is not the first
            broken.append("one_step_order")
        if self.solver.order > 1:
            broken.append("global_order")
        if self.solver.order > 1 and not any(has(one, "s_churn") for one in chain(self.solver)):
            broken.append("output_distribution")  # churn forgets the first step
        if innermost.reaches_zero and innermost.memory:
            broken.append("reaches_zero")
        return {**self.solver.known_failures, **dict.fromkeys(broken, why)}

    def weight(self, alpha: Number, sigma: Number) -> Number:
        """What the first state is multiplied by."""
        signal = alpha * self.sigma_data
        square = signal * signal + sigma * sigma
        scale = alpha * self.sigma_data * self.sigma_data
        if self.analytic_form == "posterior":
            return scale / square
        return scale / (square + sigma * sqrt(square))

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step; the first one asks the model once less."""
        if self.analytic_start and ctx.index == 0 and sigma_next > 0:
            ctx = _Analytic(ctx, self)
        return ctx.advance(self.solver, x, sigma, sigma_next)
