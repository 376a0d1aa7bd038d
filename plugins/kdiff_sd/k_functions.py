"""How a sampler becomes a function with k-diffusion's signature; see `kdiff_sd.k_diffusion`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any

import torch
from attrs import NOTHING
from torch import Tensor

from kdiff_core.adaptive import AdaptiveSampler
from kdiff_core.building import added_options, parameters
from kdiff_core.errors import CapabilityError, TraceError
from kdiff_core.lookup import default_registry, get_modifier, get_sampler, list_modifiers
from kdiff_core.noise import noise_from
from kdiff_core.plans import Evaluate, Plan
from kdiff_core.result import Result, StepInfo
from kdiff_core.sampler import StepSampler

from .k_watched import Watched, tell

# Where k-diffusion calls an option otherwise.
RENAMED = {"lms": {"order": "max_order"}}
# Samplers that k-diffusion gives a range of levels in place of a grid, and what else it gives them.
RANGED: dict[str, dict[str, Any]] = {
    "dpm_fast": {"n": Parameter.empty, "eta": 0.0, "s_noise": 1.0},
    "dpm_adaptive": {"return_info": False},
}


class _StoppedError(Exception):
    """The host's ``trange`` ended before the run."""


def global_seed() -> int:
    """Return a seed drawn from torch's global generator."""
    return int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64))


def sampler_function(name: str, module: ModuleType) -> Callable[..., Any]:
    """Return the function of a sampler, ``sample_NAME``.

    Args:
        name: The sampler's name.
        module: Where ``trange`` and ``tqdm`` are looked up in each run, so that a host can replace them.

    Raises:
        UnknownNameError: There is no such sampler.
    """
    entry = default_registry().entry("sampler", name)
    ranged, renamed = RANGED.get(entry.name), RENAMED.get(entry.name, {})
    signature, churn = _signature(name)

    @torch.no_grad()
    def function(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        given |= given.pop("options", {})
        run = {each: given.pop(each, None) for each in ("extra_args", "callback", "disable", "noise_sampler")}
        model, x = given.pop("model"), given.pop("x")
        if ranged is not None:
            return _by_range(entry.name, module, model, x, given, run)
        sigmas = torch.as_tensor(given.pop("sigmas"))
        churning = {each: given.pop(each) for each in churn if each in given}
        sampler = get_sampler(name, **{renamed.get(each, each): value for each, value in given.items()})
        if churning.get("s_churn"):
            sampler = get_modifier("churn", sampler, **churning)
        return sample(module, sampler, model, x, sigmas, **run)[0]

    function.__name__ = function.__qualname__ = f"sample_{name}"
    function.__module__ = module.__name__
    function.__doc__ = f"{entry.summary}; kdiff's {entry.name!r}, by k-diffusion's signature."
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _signature(name: str) -> tuple[Signature, tuple[str, ...]]:
    """Return the signature of a sampler's function, and the names of the options of churn among them."""
    entry = default_registry().entry("sampler", name)
    ranged, renamed = RANGED.get(entry.name), RENAMED.get(entry.name, {})
    back = {own: theirs for theirs, own in renamed.items()}
    own = {back.get(n, n): p.default for n, p in (parameters(entry) or {}).items() if n not in entry.defaults}
    churn: dict[str, Any] = {}
    if ranged is None and not issubclass(type(get_sampler(name)), AdaptiveSampler):
        found = added_options(entry, [each for each in list_modifiers() if each.name == "churn"])
        churn = {n: p.default for n, p in found.get("churn", {}).items()}
    if ranged is None:
        firsts: dict[str, Any] = dict.fromkeys(("model", "x", "sigmas"), Parameter.empty)
    else:
        firsts = dict.fromkeys(("model", "x", "sigma_min", "sigma_max"), Parameter.empty)
        own = {n: default for n, default in own.items() if n not in ("evaluations", "end")} | ranged
        if "n" in own:
            firsts["n"] = own.pop("n")
    firsts |= dict.fromkeys(("extra_args", "callback", "disable"))
    rest = own | churn | {"noise_sampler": None}
    positional = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, default=v) for n, v in firsts.items()]
    named = [
        Parameter(n, Parameter.KEYWORD_ONLY, default=None if v is NOTHING else v) for n, v in rest.items()
    ]
    more = [] if ranged is not None else [Parameter("options", Parameter.VAR_KEYWORD)]
    return inspect.Signature([*positional, *named, *more]), tuple(churn)


def _by_range(name: str, module: ModuleType, model: Any, x: Tensor, given: Any, run: Any) -> Any:
    """Run a sampler that is given a range of levels."""
    sigmas = torch.tensor([float(given.pop(end)) for end in ("sigma_max", "sigma_min")], dtype=torch.float64)
    if name == "dpm_fast":
        if given.pop("eta", 0.0):
            raise CapabilityError(
                "dpm_fast with eta: its steps are stages, between which no noise is added; use "
                "sample_dpm_adaptive with eta, or another stochastic sampler"
            )
        given.pop("s_noise", None)
        n = int(given.pop("n"))
        starts = [*range(0, n, 3), *([n - 1] if n % 3 == 0 else [])]
        return sample(module, get_sampler(name, evaluations=n), model, x, sigmas, **run, starts=starts)[0]
    wanted = given.pop("return_info", False)
    found, result = sample(module, get_sampler(name, **given), model, x, sigmas, **run)
    return (found, _info(result)) if wanted else found


def sample(
    module: ModuleType,
    sampler: StepSampler,
    model: Callable[..., Any],
    x: Tensor,
    sigmas: Tensor,
    *,
    extra_args: Mapping[str, Any] | None,
    callback: Callable[[dict[str, Any]], Any] | None,
    disable: bool | None,
    noise_sampler: Any,
    starts: Sequence[int] | None = None,
) -> tuple[Tensor, Result | None]:
    """Run a sampler as k-diffusion would: its callback, its progress bar, its model.

    Args:
        module: Where ``trange`` and ``tqdm`` are looked up.
        sampler: The sampler.
        model: ``model(x, sigma, **extra_args)``, which returns the denoised state.
        x: State at the first level, ``(B, ...)``.
        sigmas: Levels, ``(n + 1,)``; with fewer than two the state is returned as it is.
        extra_args: Keyword arguments of the model.
        callback: Called behind the first evaluation of each step, or of a run without a plan at its end.
        disable: As of tqdm.
        noise_sampler: ``f(sigma, sigma_next)`` or a noise source. Default: keyed, by a seed from torch's
            global generator.
        starts: Numbers of the evaluations for which the callback is called. Default: each step's first.

    Returns:
        The state, and what `StepSampler.run` returned if the run came to its end.
    """
    if len(sigmas) < 2:
        return x, None
    watched = Watched(model, callback)
    levels = sigmas.double().tolist()
    try:
        plan = sampler.plan(levels, watched.path, watched.process) if sampler.linear else None
    except TraceError:
        plan = None
    options: dict[str, Any] = {"cond": dict(extra_args or {})}
    options |= _noise(noise_sampler, sigmas) if sampler.stochastic else {}
    if plan is None:
        if callback is not None:
            options["callback"] = lambda info: _tell_of(callback, info, sigmas, sampler)
        bar = module.tqdm(disable=disable)
        watched.advance = bar.update
    else:
        _show(watched, plan, sigmas, levels, starts)
        bar = iter(module.trange(len(plan.steps), disable=disable))
        watched.advance = lambda: _next(bar)
    try:
        result = sampler.run(watched, x, levels, **options)
        if plan is not None:
            for _ in bar:
                pass
    except _StoppedError as stopped:
        return stopped.partial.x, None  # type: ignore[attr-defined]  # the engine leaves it there
    finally:
        getattr(bar, "close", lambda: None)()
    return result.x, result


def _info(result: Result | None) -> dict[str, Any]:
    """Return what k-diffusion says of an adaptive run; where samples have own steps, lists of numbers."""
    if result is None:
        return {}
    accepted, rejected = result.info["accepted"], result.info["rejected"]
    each = isinstance(accepted, list)
    steps = [a + r for a, r in zip(accepted, rejected, strict=True)] if each else accepted + rejected
    return {"steps": steps, "nfe": result.evaluations, "n_accept": accepted, "n_reject": rejected}


def _next(bar: Iterator[Any]) -> None:
    """Advance a progress bar; one that the host has ended ends the run."""
    try:
        next(bar)
    except StopIteration:
        raise _StoppedError from None


def _show(
    watched: Watched, plan: Plan, sigmas: Tensor, levels: list[float], starts: Sequence[int] | None
) -> None:
    """Find the evaluations with which the steps of a plan begin, and what the callback gets there."""
    firsts: dict[int, int] = {}
    call = 0
    for step in plan.steps:
        if evaluations := sum(isinstance(op, Evaluate) for op in step.ops):
            firsts[call] = step.index
        call += evaluations
    watched.begins = frozenset(firsts)
    own = sigmas if list(plan.levels) == levels else sigmas.new_tensor([float(v) for v in plan.levels])
    # A sampler may visit more levels than it was given; ``i`` stays below their number all the same.
    asked, taken = len(levels) - 1, len(plan.steps)
    shown = {call: (index * asked // taken, own[index]) for call, index in firsts.items()}
    if starts is not None:
        shown = {call: (i, shown[call][1]) for i, call in enumerate(starts)}
    watched.shown = shown


def _tell_of(callback: Any, info: StepInfo, sigmas: Tensor, sampler: StepSampler) -> None:
    """Call a callback at the end of a step of a run without a plan: adaptive ones show its last state."""
    adaptive = isinstance(sampler, AdaptiveSampler)
    x, levels = (info.x_next, [info.sigma_next] * 2) if adaptive else (info.x, [info.sigma, info.sigma_hat])
    sigma, sigma_hat = (sigmas.new_tensor(level) for level in levels)
    tell(callback, x, info.index, sigma, sigma_hat, info.denoised)


def _noise(noise_sampler: Any, sigmas: Tensor) -> dict[str, Any]:
    """Return the noise of a run, as an option of `StepSampler.run`."""
    if noise_sampler is None:
        return {"seed": global_seed()}
    if callable(getattr(noise_sampler, "noise", None)):
        return {"noise": noise_sampler}
    # k-diffusion gives levels as tensors without dimensions.
    new = sigmas.new_tensor
    return {"noise": noise_from(lambda sigma, sigma_next: noise_sampler(new(sigma), new(sigma_next)))}
