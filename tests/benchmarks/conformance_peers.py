"""The peers' samplers as black boxes of one shape: levels and a denoiser in, the last state out.

Nothing of theirs is copied: their functions and classes are called, in float64. diffusers' schedulers are in
`conformance_diffusers`.
"""

from __future__ import annotations

import importlib
import inspect
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from peers import k_diffusion, missing
from torch import Tensor

from kdiff_core.testing.measure import interpret

Denoiser = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[..., Tensor]
Exact = Callable[[float], Tensor]


@frozen
class Subject:
    """A peer's sampler, and what its name or its paper promises.

    Attributes:
        name: The peer's name of it, and options.
        order: The order promised of the probability flow (of the SDE's drift where `drift`), or None.
        run: ``run(model, x, levels, draw, exact)``: the state at the last level. Where `exact` is given,
            the state at each level of the grid is replaced by the exact one before its step.
        memory: Number of earlier points that a step reads.
        weak: The weak order promised: None for a method without noise, 1 for one that has the right limit.
        kind: Coordinates of the state: ``"ve"`` or ``"flow"``.
        per: Number of levels that one step of a single-step method takes from the grid.
        drift: Noise is set to 0, and the order is that for the drift of the reverse SDE.
        shared: Noises are increments of one Brownian path, not independent draws.
        ends: Whether it is also run to level 0.
        runs: The order promised of whole runs, where it is not `order` (with a memory: at most 2).
    """

    name: str
    order: int | None
    run: Callable[..., Tensor]
    memory: int = 0
    weak: int | None = None
    kind: str = "ve"
    per: int = 1
    drift: bool = False
    shared: bool = False
    ends: bool = False
    runs: int | None = None


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Put something in the place of a module's attribute for a while."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


@contextmanager
def quiet_double(draw: Draw) -> Iterator[None]:
    """Float64 by default, no warnings, and noise from `draw` where a peer asks torch for it."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            warnings.catch_warnings(),
            replaced(torch, "randn_like", lambda x, **options: draw()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(kept)


def none(*interval: Any) -> Tensor:
    """No noise."""
    return torch.zeros((), dtype=torch.float64)


def taught(model: Denoiser, exact: Exact | None) -> Denoiser:
    """A model that writes the exact state over the one it is given, which is the caller's own tensor.

    Only for methods of one evaluation a step, whose every call is at a level of the grid.
    """

    def teacher(x: Tensor, sigma: Tensor, **options: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float64)
        if exact is not None:
            x.copy_(exact(float(level.reshape(-1)[0])))
        return model(x, level)

    return teacher


def run_function(
    function: Callable[..., Tensor],
    model: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    draw: Draw = none,
    exact: Exact | None = None,
    **options: Any,
) -> Tensor:
    """Run a function of k-diffusion's shape, ``function(model, x, sigmas)``."""
    if "noise_sampler" in inspect.signature(function).parameters:
        options["noise_sampler"] = draw
    with quiet_double(draw):
        sigmas = torch.tensor(levels, dtype=torch.float64)
        return function(taught(model, exact), x.clone(), sigmas, disable=True, **options)


def run_k_diffusion(name: str, *args: Any, **options: Any) -> Tensor:
    """Run one of k-diffusion's functions."""
    return run_function(getattr(k_diffusion(), name), *args, **options)


def run_dpm_fast(
    model: Denoiser, x: Tensor, levels: Sequence[float], draw: Draw = none, exact: Exact | None = None
) -> Tensor:
    """Run ``sample_dpm_fast``, which places its levels itself; for two levels its first step alone."""
    seen: list[Tensor] = []
    first, last, calls = levels[0], levels[-1], 3 * (len(levels) - 1)
    alone = len(levels) == 2
    if alone:  # two steps, of orders 3 and 1: the state after the first is kept
        last, calls = last * last / first, 4
    options = {"callback": lambda info: seen.append(info["x"]), "disable": True}
    with quiet_double(draw):
        end = k_diffusion().sample_dpm_fast(taught(model, None), x, last, first, calls, **options)
    return seen[1] if alone else end


def run_kdiff(
    sampler: Any,
    path: str,
    model: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    draw: Draw = none,
    exact: Exact | None = None,
) -> Tensor:
    """Carry out the plan of one of kdiff's samplers."""
    plan = sampler.plan(list(levels), path)
    return interpret(
        plan, x.clone(), taught(model, exact), lambda noise: draw(noise.sigma_from, noise.sigma_to)
    )[plan.result]


def missing_peer(name: str) -> str | None:
    """Why a peer cannot be used, or None."""
    if name != "azula":
        return None if name == "kdiff" else missing(name)
    try:
        azula("Sampler")
    except ImportError as error:
        return f"azula is not installed, or not all that it imports ({error.name}): pip install azula"
    return None


def azula(name: str) -> Any:
    """Load one of azula's samplers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module("azula.sample"), name)


def run_azula(
    name: str,
    kind: str,
    model: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    draw: Draw = none,
    exact: Exact | None = None,
    **options: Any,
) -> Tensor:
    """Run one of azula's samplers; the levels are its times, by a schedule that says so."""
    denoise = taught(model, exact)

    class Posterior:
        schedule = staticmethod(lambda t: (1 - t if kind == "flow" else torch.ones_like(t), t))

        def __call__(self, x: Tensor, t: Tensor) -> Any:
            return types.SimpleNamespace(mean=denoise(x, t))

    base = azula(name)
    with quiet_double(draw):
        times = torch.tensor(levels, dtype=torch.float64)
        sampler = type(name, (base,), {"timesteps": times})(Posterior(), silent=True, **options)
        return sampler(x.clone())
