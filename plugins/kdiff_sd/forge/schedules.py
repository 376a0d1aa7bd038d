"""Schedules as Forge and A1111 call them: ``f(n=, sigma_min=, sigma_max=, device=)``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdiff_core.building import parameters
from kdiff_core.errors import CapabilityError, KdiffError
from kdiff_core.lookup import default_registry, get_process, get_schedule, list_schedules

_RANGE = {"sigma_min": 0.03, "sigma_max": 14.6}


@functools.cache
def host_schedule(name: str) -> Callable[..., Tensor]:
    """Return the function of a schedule.

    Returns:
        ``f(n, sigma_min, sigma_max, inner_model=None, device="cpu", rho=None)``, which returns ``(n + 1,)``
        levels in float32. Where the model is given, the schedule spends the levels it was trained on.

    Raises:
        UnknownNameError: There is no such schedule.
    """
    default_registry().entry("schedule", name)

    def function(
        n: int,
        sigma_min: Any,
        sigma_max: Any,
        inner_model: Any = None,
        device: Any = "cpu",
        rho: float | None = None,
    ) -> Tensor:
        schedule = get_schedule(name, **({"rho": float(rho)} if rho else {}))
        ends: dict[str, Any] = {"sigma_min": float(sigma_min), "sigma_max": float(sigma_max)}
        if inner_model is not None:
            ends["process"] = _process(inner_model)
        return torch.tensor(list(schedule(int(n), **ends)), dtype=torch.float32, device=device)

    function.__name__ = function.__qualname__ = f"get_sigmas_{name}"
    return function


def _process(inner_model: Any) -> Any:
    """Return the noise process of a k-diffusion wrapper, from its table of levels."""
    levels = getattr(inner_model, "sigmas", None)
    if not isinstance(levels, Tensor):
        raise CapabilityError(
            f"the model {type(inner_model).__name__} has no table of levels, `sigmas`, which this schedule "
            "spends; use one such as karras, which needs the lowest and the highest level only"
        )
    alphas = 1 / (1 + levels.detach().double().cpu() ** 2)
    return get_process("alphas_cumprod", alphas_cumprod=alphas.tolist())


def rho_of(name: str) -> float:
    """Return the default of a schedule's ``rho``, and -1 where it has none."""
    found = (parameters(default_registry().entry("schedule", name)) or {}).get("rho")
    return -1 if found is None else float(found.default)


def offered() -> list[tuple[str, bool]]:
    """List the schedules that need no options, each with whether it needs the model's levels."""
    found = []
    for entry in list_schedules():
        for process in (None, get_process("sd")):
            try:
                get_schedule(entry.name)(4, **_RANGE, **({} if process is None else {"process": process}))
            except KdiffError:
                continue
            found.append((entry.name, process is not None))
            break
    return found
