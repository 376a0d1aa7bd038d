"""kdiff's names in ComfyUI's drop-downs: only ever appended, in place, and taken out again.

ComfyUI has no call for this. A sampler is an attribute ``sample_NAME`` of ``comfy.k_diffusion.sampling`` and
an element of ``comfy.samplers.KSampler.SAMPLERS``; a schedule is an entry of ``SCHEDULER_HANDLERS`` and an
element of ``SCHEDULER_NAMES``. Nothing of another's is changed, replaced or moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kdiff_core.errors import KdiffError, ParameterError
from kdiff_core.lookup import get_sampler, get_schedule, list_samplers, list_schedules
from kdiff_core.names import quoted

from .host_model import module, process_of
from .ksampler import sampler_function

PREFIX = "kdiff/"
# What this process has registered: functions and handlers, by the name in the drop-down.
_samplers: dict[str, Any] = {}
_schedules: dict[str, Any] = {}


def register_dropdown(names: Iterable[str] | None = None, prefix: str = PREFIX) -> list[str]:
    """Put samplers into the drop-down of every sampler node.

    Args:
        names: Names of samplers. Default: every one of kdiff and of its plugins, without the hosts' variants.
        prefix: What is put before each name.

    Returns:
        The names in the drop-down, in order, also those that this function has registered before.

    Raises:
        ParameterError: A name is there already, of somebody else; then nothing is registered.
        UnknownNameError: No plugin offers a sampler.
        CapabilityError: This Python is not ComfyUI's.
    """
    sampling, known = module("comfy.k_diffusion.sampling"), module("comfy.samplers").KSampler.SAMPLERS
    made = {prefix + name: name for name in _buildable(names, list_samplers, get_sampler)}
    new = [name for name in made if name not in _samplers]
    _refuse_taken([name for name in new if name in known or hasattr(sampling, f"sample_{name}")])
    for name in new:
        _samplers[name] = sampler_function(made[name])
        setattr(sampling, f"sample_{name}", _samplers[name])
        known.append(name)
    return list(made)


def unregister_dropdown(names: Iterable[str] | None = None, prefix: str = PREFIX) -> None:
    """Take samplers that `register_dropdown` put there out of the drop-down; default: all with the prefix."""
    sampling, known = module("comfy.k_diffusion.sampling"), module("comfy.samplers").KSampler.SAMPLERS
    for name in _own(_samplers, names, prefix):
        function = _samplers.pop(name)
        if getattr(sampling, f"sample_{name}", None) is function:
            delattr(sampling, f"sample_{name}")
        if name in known:
            known.remove(name)


def register_schedules(names: Iterable[str] | None = None, prefix: str = PREFIX) -> list[str]:
    """Put schedules into the drop-down of every sampler node.

    Args:
        names: Names of schedules. Default: every one that needs no options, without the hosts' variants.
        prefix: What is put before each name.

    Returns:
        The names in the drop-down, in order, also those that this function has registered before.

    Raises:
        ParameterError: A name is there already, of somebody else; then nothing is registered.
        UnknownNameError: No plugin offers a schedule.
        CapabilityError: This Python is not ComfyUI's.
    """
    host = module("comfy.samplers")
    made = {prefix + name: name for name in _buildable(names, list_schedules, get_schedule)}
    new = [name for name in made if name not in _schedules]
    _refuse_taken([name for name in new if name in host.SCHEDULER_NAMES or name in host.SCHEDULER_HANDLERS])
    for name in new:
        _schedules[name] = host.SchedulerHandler(schedule_function(made[name]), True)
        host.SCHEDULER_HANDLERS[name] = _schedules[name]
        # In some builds the names are the handlers' own.
        if name not in host.SCHEDULER_NAMES:
            host.SCHEDULER_NAMES.append(name)
    return list(made)


def unregister_schedules(names: Iterable[str] | None = None, prefix: str = PREFIX) -> None:
    """Take schedules that `register_schedules` put there out again; default: all with the prefix."""
    host = module("comfy.samplers")
    for name in _own(_schedules, names, prefix):
        handler = _schedules.pop(name)
        if host.SCHEDULER_HANDLERS.get(name) is handler:
            del host.SCHEDULER_HANDLERS[name]
        if name in host.SCHEDULER_NAMES:
            host.SCHEDULER_NAMES.remove(name)


def schedule_function(schedule: Any, /, **options: Any) -> Callable[[Any, int], Tensor]:
    """Return a schedule as ComfyUI's handlers have it, ``f(model_sampling, steps)``.

    Args:
        schedule: A name, or a schedule.
        **options: Of the name.

    Returns:
        A function that returns the levels, ``(steps + 1,)`` in float32 on the CPU.
    """
    made = get_schedule(schedule, **options)

    def levels(model_sampling: Any, steps: int) -> Tensor:
        low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
        grid = made(int(steps), sigma_min=low, sigma_max=high, process=process_of(model_sampling))
        return torch.tensor(list(grid), dtype=torch.float32, device="cpu")

    return levels


def _buildable(
    names: Iterable[str] | None, listed: Callable[[], Any], get: Callable[[str], Any]
) -> list[str]:
    """Return the names asked for, checked; by default all that can be made without options."""
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            get(name)
        return names
    found = []
    for entry in listed():
        try:
            get(entry.name)
        except KdiffError:
            continue
        found.append(entry.name)
    return found


def _own(registered: dict[str, Any], names: Iterable[str] | None, prefix: str) -> list[str]:
    asked = None if names is None else {prefix + name for name in names}
    return [name for name in registered if (name in asked if asked is not None else name.startswith(prefix))]


def _refuse_taken(names: list[str]) -> None:
    if names:
        raise ParameterError(
            f"ComfyUI has {quoted(names)} already, of another pack; nothing was registered: take another "
            "prefix"
        )
