"""Samplers as Forge and A1111 call them: functions by k-diffusion's signature, noise by each image's seed."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import Parameter
from typing import Any

from attrs import frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, StateError
from kdiff_core.lookup import get_sampler, list_samplers
from kdiff_core.noise import KeyedNoise
from kdiff_core.plans import Evaluate, Plan
from kdiff_core.protocols import PathName
from kdiff_core.sampler import StepSampler

from .. import k_diffusion
from ..k_functions import sampler_function

# What the host hands over by name wherever a signature has it.
RANGE = ("n", "sigma_min", "sigma_max", "sigma_sched")
# What it hands over from its settings where it is told to.
EXTRA = ("s_churn", "s_tmin", "s_tmax", "s_noise")
_LEVELS = (1.0, 0.7, 0.45, 0.2, 0.0)

_seeds: ContextVar[tuple[int, ...] | None] = ContextVar("kdiff_forge_seeds", default=None)


@contextmanager
def seeded(seeds: Sequence[int]) -> Iterator[None]:
    """Give the runs inside a seed for each image of the batch."""
    token = _seeds.set(tuple(int(seed) % 2**64 for seed in seeds))
    try:
        yield
    finally:
        _seeds.reset(token)


def _noise(x: Tensor) -> KeyedNoise:
    """Return the noise of the run that the host has begun with the state `x`."""
    seeds = _seeds.get()
    if seeds is None:
        raise CapabilityError(
            "this sampler takes its noise from the seeds of the images, and no run of the host has begun; "
            "build it with the constructor that it is registered with, or call it inside seeded([...])"
        )
    if len(seeds) != len(x):
        raise StateError(f"the host has {len(seeds)} seeds for a batch of {len(x)}: give one for each image")
    return KeyedNoise(list(seeds))


@frozen
class OnPath:
    """The host's model, on a path that the host does not name."""

    model: Callable[..., Any]
    path: PathName

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Any:
        """Call the model."""
        return self.model(x, sigma, **extra)


@functools.cache
def host_function(name: str, path: PathName = "ve") -> Callable[..., Any]:
    """Return the function of a sampler, with no parameter that the host would fill with something else.

    Args:
        name: The sampler's name.
        path: Path of the models it is for.

    Returns:
        ``f(model, x, sigmas, extra_args=, callback=, disable=, **options)``, or with ``n``, ``sigma_min`` and
        ``sigma_max`` in place of ``sigmas``.

    Raises:
        UnknownNameError: There is no such sampler.
    """
    inner = sampler_function(name, k_diffusion)
    signature = inspect.signature(inner)
    ranged = "sigmas" not in signature.parameters

    def function(model: Callable[..., Any], x: Tensor, *args: Any, **options: Any) -> Tensor:
        given = signature_here.bind(model, x, *args, **options).arguments
        given = {**given, "model": OnPath(model, path)}
        found: Tensor = inner(**given, noise_sampler=_noise(x))
        return found

    left_out = {"noise_sampler", "options", *(() if ranged else RANGE)}
    eta = signature.parameters.get("eta")
    if eta is not None and eta.default not in (0.0, 1.0):
        left_out.add("eta")  # the host knows these two defaults, and sets one of them
    kept = [p for p in signature.parameters.values() if p.name not in left_out]
    signature_here = signature.replace(parameters=kept)
    function.__name__ = function.__qualname__ = f"sample_{'' if path == 've' else 'flow_'}{name}"
    function.__doc__ = inner.__doc__
    function.__signature__ = signature_here  # type: ignore[attr-defined]
    return function


def options_of(name: str, path: PathName = "ve") -> dict[str, Any]:
    """Return the host's record of a sampler: what follows from its parameters and its plan.

    ``brownian_noise`` and ``uses_ensd`` are not among them: the noise is kdiff's own, by each image's seed.
    """
    eta = inspect.signature(host_function(name, path)).parameters.get("eta")
    plan = _plan(get_sampler(name), path)
    found = {"default_eta_is_0": eta is not None and eta.default == 0.0}
    found["second_order"] = plan is not None and _calls_a_step(plan) > 1
    return {option: True for option, is_so in found.items() if is_so}


def extra_parameters(function: Callable[..., Any]) -> list[str]:
    """Return the parameters of a function that the host's settings are for, by their names."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.name in EXTRA and p.kind is Parameter.KEYWORD_ONLY
    ]


def offered(
    paths: Sequence[PathName] = ("ve", "flow"), names: Container[str] | None = None
) -> list[tuple[str, PathName]]:
    """List the samplers that the host can run, each with the path of the models it is for.

    Left out are samplers that need more than the guided output. A sampler that does the same on both paths is
    listed once, for ``"ve"``.

    Args:
        paths: Which paths.
        names: Which samplers. Default: all.
    """
    found: list[tuple[str, PathName]] = []
    for entry in list_samplers():
        if names is not None and entry.name not in names:
            continue
        sampler = get_sampler(entry.name)
        if sampler.needs:
            continue
        plans = {path: _plan(sampler, path) for path in paths}
        ve, flow = plans.get("ve"), plans.get("flow")
        same = ve is not None and flow is not None and ve.steps == flow.steps
        found += [(entry.name, path) for path in paths if path == "ve" or not same]
    return found


def _plan(sampler: StepSampler, path: PathName) -> Plan | None:
    return sampler.plan(_LEVELS, path) if sampler.linear else None


def _calls_a_step(plan: Plan) -> int:
    """Return how many model calls most steps make."""
    counts = Counter(sum(isinstance(op, Evaluate) for op in step.ops) for step in plan.steps)
    return max(counts, key=lambda calls: (counts[calls], calls))
