"""Variants of a sampler that a law is about, and the denoisers it is run on."""

from __future__ import annotations

from typing import Any

import attrs

from ..context import Prediction
from .catalogue import LawBroken

# Parameters that are a share or an amount of noise: at 0 the sampler is deterministic.
_NOISE = ("eta", "s_churn")


def deterministic(sampler: Any) -> Any:
    """The sampler without its noise; the sampler itself if it draws none, or cannot do without."""
    if not sampler.stochastic or not attrs.has(type(sampler)):
        return sampler
    own = {field.name for field in attrs.fields(type(sampler)) if field.init}
    changed: dict[str, Any] = {name: 0.0 for name in _NOISE if name in own}
    if "solver" in own:  # of a sampler that wraps another
        changed["solver"] = deterministic(sampler.solver)
    quiet = attrs.evolve(sampler, **changed)
    return sampler if quiet.stochastic else quiet


def has_deterministic(sampler: Any) -> bool:
    """Whether there is a deterministic variant."""
    return not deterministic(sampler).stochastic


def with_unit_noise(sampler: Any) -> Any:
    """The sampler with its noise at full strength, which keeps the marginals."""
    if attrs.has(type(sampler)) and any(field.name == "s_noise" for field in attrs.fields(type(sampler))):
        return attrs.evolve(sampler, s_noise=1.0)
    return sampler


def scaled(sampler: Any, factor: float) -> Any:
    """The sampler with its parameters that are noise levels (metadata ``unit="sigma"``) multiplied."""
    if not attrs.has(type(sampler)):
        return sampler
    own = [f for f in attrs.fields(type(sampler)) if f.metadata.get("unit") == "sigma" and f.init]
    inner = [f for f in attrs.fields(type(sampler)) if f.name == "solver" and f.init]
    changed = {f.alias: getattr(sampler, f.name) * factor for f in own}
    changed |= {f.alias: scaled(getattr(sampler, f.name), factor) for f in inner}
    return attrs.evolve(sampler, **changed)


def declaring(sampler: Any, **attributes: Any) -> Any:
    """The same sampler, of a class that declares something else."""
    kind = type(sampler)
    if not attrs.has(kind):
        raise LawBroken(f"{kind.__name__} is no attrs class; decorate it with @attrs.frozen")
    other = type(kind.__name__, (kind,), {**attributes, "__slots__": (), "__doc__": kind.__doc__})
    return other(**{field.alias: getattr(sampler, field.name) for field in attrs.fields(kind) if field.init})


def untraced(sampler: Any) -> Any:
    """The same sampler, declared not linear: the engine then runs its step on tensors."""
    return declaring(sampler, linear=False)


class Guided:
    """A problem as a guided denoiser, whose conditional and unconditional outputs are the guided one."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.path = problem.path

    def __call__(self, x: Any, sigma: Any, **cond: Any) -> Any:
        """The denoised state."""
        return self.problem(x, sigma, **cond)

    def predict(self, x: Any, sigma: Any, **cond: Any) -> Prediction:
        """The three outputs, each in memory of its own."""
        return Prediction(*(self.problem(x, sigma, **cond) for _ in range(3)))


def model_for(sampler: Any, problem: Any) -> Any:
    """The problem as a denoiser that gives what the sampler needs."""
    return Guided(problem) if getattr(sampler, "needs", ()) else problem


class Function:
    """A denoiser from a function and a path."""

    def __init__(self, path: str, function: Any) -> None:
        self.path = path
        self.function = function

    def __call__(self, x: Any, sigma: Any, **cond: Any) -> Any:
        """The function's result."""
        return self.function(x, sigma, **cond)
