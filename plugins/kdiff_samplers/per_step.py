"""Noise over the run: its share and its factor step by step, or in an interval of levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from attrs import Attribute, field, frozen
from attrs.converters import optional

from kdiff_core import Grid, Path, Process, StepContext, StepSampler, get_sampler
from kdiff_core.errors import ParameterError
from kdiff_core.parameters import level

from .sa_solver import SASolver
from .wrapped import Wrapped, cannot, chain, has


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    if not isinstance(values, Iterable):
        raise ParameterError(f"PerStep: {values!r} is not a list with a number for each step")
    return tuple(float(value) for value in values)


def _with(solver: Any, values: dict[str, float]) -> Any:
    """The solver with other values of parameters that it, or a solver that it wraps, has."""
    own = {name: value for name, value in values.items() if has(solver, name)}
    inner = {name: value for name, value in values.items() if name not in own}
    if inner:
        return attrs.evolve(solver, solver=_with(solver.solver, inner), **own)
    return attrs.evolve(solver, **own) if own else solver


def _has_them(instance: PerStep, attribute: Attribute[Any], solver: StepSampler) -> None:
    known = {name for name in ("eta", "s_noise") for one in chain(solver) if has(one, name)}
    if not known:
        raise cannot(instance, solver, "has neither eta nor s_noise: it draws no noise that these change")
    wanted = {"eta": instance.etas is not None or instance._limited, "s_noise": instance.s_noises is not None}
    for name in (name for name, needed in wanted.items() if needed and name not in known):
        raise cannot(instance, solver, f"has no parameter {name!r}")
    if any(isinstance(one, SASolver) and one.corrector_order and not one.pece for one in chain(solver)):
        raise cannot(instance, solver, "takes each step twice, the second time with the next one's noise")


def _same_length(instance: PerStep, attribute: Attribute[Any], values: tuple[float, ...] | None) -> None:
    if instance.etas is not None and values is not None and len(values) != len(instance.etas):
        raise ParameterError(
            f"PerStep: etas has {len(instance.etas)} numbers and s_noises {len(values)}; give one a step"
        )


def _above_low(instance: PerStep, attribute: Attribute[Any], value: float) -> None:
    if value <= instance.noise_low:
        raise ParameterError(f"PerStep: noise_high={value} is not above noise_low={instance.noise_low}")


@frozen
class PerStep(Wrapped):
    """Another share or factor of the noise in each step, or noise in an interval of levels alone.

    Each step is taken by the solver with that step's parameters. The noise of a step is exact whatever its
    share, so the distribution has the solver's order. An interval is what Karras et al. 2022,
    arXiv:2206.00364, Algorithm 2, have for churn, here for every sampler with an `eta`.

    Attributes:
        solver: The solver, a sampler or its name; it, or one that it wraps, has the parameters.
        etas: `eta` of each step, the one into 0 included. Default: the solver's own.
        s_noises: `s_noise` of each step. Default: the solver's own.
        noise_low: Lowest level at which a step with noise begins; elsewhere `eta` is 0.
        noise_high: Highest level at which a step with noise begins.
    """

    solver: StepSampler = field(default="euler_ancestral", converter=get_sampler, validator=_has_them)
    etas: tuple[float, ...] | None = field(default=None, converter=optional(_numbers))
    s_noises: tuple[float, ...] | None = field(
        default=None, converter=optional(_numbers), validator=_same_length
    )
    noise_low: float = field(default=0.0, converter=float, validator=level, metadata={"unit": "sigma"})
    noise_high: float = field(
        default=math.inf, converter=float, validator=[level, _above_low], metadata={"unit": "sigma"}
    )
    # What takes the steps, made once so that bad values are refused at once: one for each step, or one for
    # all, and the one outside of the interval.
    _solvers: tuple[StepSampler, ...] = field(init=False, eq=False, repr=False)
    _quiet: StepSampler = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        lists = {"eta": self.etas, "s_noise": self.s_noises}
        lists = {name: given for name, given in lists.items() if given is not None}
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        solvers = tuple(_with(self.solver, row) for row in rows) if lists else (self.solver,)
        quiet = _with(self.solver, {"eta": 0.0}) if self._limited else self.solver
        object.__setattr__(self, "_solvers", solvers)
        object.__setattr__(self, "_quiet", quiet)

    @property
    def _limited(self) -> bool:
        return self.noise_low > 0 or self.noise_high < math.inf

    @property
    def described(self) -> StepSampler:
        """The solver with the largest share of noise."""
        if not self.etas:
            return self.solver
        return self._solvers[max(range(len(self.etas)), key=self.etas.__getitem__)]

    @property
    def path_invariant(self) -> bool:
        """The solver's. An interval of levels is another on each path."""
        return self.described.path_invariant and not (self._limited and self.stochastic)

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The solver's levels.

        Raises:
            ParameterError: More or fewer numbers than steps.
        """
        levels = self.solver.prepare(grid, path, process)
        for name in ("etas", "s_noises"):
            given, steps = getattr(self, name), len(levels) - 1
            if given is not None and len(given) != steps:
                raise ParameterError(f"PerStep: {name} has {len(given)} numbers for a run of {steps} steps")
        return levels

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """A step with its own noise."""
        if self.noise_low <= sigma <= self.noise_high:
            solver = self._solvers[ctx.index if len(self._solvers) > 1 else 0]
        else:
            solver = self._quiet
        return ctx.advance(solver, x, sigma, sigma_next)
