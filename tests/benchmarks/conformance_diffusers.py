"""diffusers' schedulers as black boxes of the shape that `conformance_peers` describes.

What they read from a schedule of their own (levels, a table of alphas) is set to the levels of the test, and
their casts of states to float32 are left out, so that the formula is measured and not the rounding.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import types
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from conformance_peers import Denoiser, Draw, Exact, none, quiet_double, replaced
from peers import diffusers_class
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Schedulers whose states are data plus noise; those of the others are scaled to variance 1, or on flow.
_UNSCALED = ("Euler", "Heun", "KDPM2", "LMS", "DPMSolverSDE", "EDM")
_TWO_STAGES = ("Heun", "KDPM2", "DPMSolverSDE", "FlowMatchHeun")


class _Double(TorchFunctionMode):
    """Leaves out casts to float32."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to:
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _scheduler(name: str, options: dict[str, Any], levels: Sequence[float], end: float, kind: str) -> Any:
    """One of diffusers' schedulers, set to levels and a last one that stands for the end."""
    own = {"num_train_timesteps": len(levels), **options}
    known = inspect.signature(_class(name).__init__).parameters
    if "timestep_spacing" in known:
        own["timestep_spacing"] = "trailing"
    if kind == "flow" and not name.startswith("FlowMatch"):
        own |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = _class(name)(**own)
    ratios = torch.tensor(levels)
    if hasattr(scheduler, "alphas_cumprod"):
        scheduler.alphas_cumprod = (1 / (1 + ratios**2)).flip(0)
    scheduler.set_timesteps(len(levels))
    if name.startswith("IPNDM"):
        scheduler.betas, scheduler.alphas = ratios / (1 + ratios**2).sqrt(), 1 / (1 + ratios**2).sqrt()
    elif name == "FlowMatchHeunDiscreteScheduler":
        scheduler.sigmas = torch.cat([ratios[:1], ratios[1:].repeat_interleave(2), ratios[-1:]])
    elif not name.startswith(_TWO_STAGES):
        scheduler.sigmas = torch.cat([ratios, torch.tensor([end])])
    for key, value in vars(scheduler).items():
        if "sigmas" in key and isinstance(value, Tensor):
            setattr(scheduler, key, value.double())
    scheduler.is_scale_input_called = True
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def _class(name: str) -> Any:
    if name != "DPMSolverSDEScheduler":
        return diffusers_class(name)
    stubbed = find_spec("torchsde") is None  # only for a noise source that is not used here
    if stubbed:
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
    try:
        return getattr(importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde"), name)
    finally:
        if stubbed:
            sys.modules.pop("torchsde", None)


def _calls(name: str, scheduler: Any, levels: Sequence[float]) -> list[tuple[float, int | None]]:
    """Level of each model call, and the grid's index where it begins a step."""
    steps = range(len(levels) - 1)
    if name.startswith("PNDM"):
        return [(levels[0], 0), (levels[1], None), *((levels[i], i) for i in steps[1:])]
    if name.startswith("DPMSolverSinglestep"):
        return [(levels[i], i if scheduler.order_list[i] == 1 else None) for i in steps]
    if not name.startswith(_TWO_STAGES):
        return [(levels[i], i) for i in steps]
    second = [levels[i + 1] for i in steps]
    if name.startswith("KDPM2"):
        shift = 0 if "Ancestral" in name else 1
        second = [float(scheduler.sigmas_interpol[2 * i + shift]) for i in steps]
    elif name.startswith("DPMSolverSDE"):
        second = [math.sqrt(levels[i] * levels[i + 1]) for i in steps]
    calls = [call for i in steps for call in ((levels[i], i), (second[i], None))]
    return calls if levels[-1] else calls[:-1]  # into 0 they take an Euler step


def _output(name: str, kind: str, seen: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """What a model of the scheduler's kind would have handed out."""
    if name.startswith("EDM"):
        total = sigma**2 + 0.25
        return (denoised - 0.25 / total * seen) * total**0.5 / (0.5 * sigma)
    noise = (seen - denoised * (1 - sigma if kind == "flow" else 1)) / sigma
    if kind == "flow":
        return noise - denoised
    return (noise - sigma * denoised) / (1 + sigma**2) ** 0.5 if name.startswith("IPNDM") else noise


def run_diffusers(
    name: str,
    kind: str,
    model: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    draw: Draw = none,
    exact: Exact | None = None,
    corrected: bool = False,
    each: dict[str, Any] | None = None,
    **options: Any,
) -> Tensor:
    """Loop over a scheduler's ``step``.

    Args:
        name: Its class.
        kind: ``"ve"`` or ``"flow"``.
        model: The denoiser.
        x: The first state.
        levels: The grid.
        draw: The noise.
        exact: The exact state at a level.
        corrected: The result is the state that the corrector makes of the last one.
        each: Options of ``step``.
        **options: Options of the class.
    """
    variance_preserving = kind == "ve" and not name.startswith(_UNSCALED)
    # One level more, so that no step is the last, for which many have rules of their own.
    known = [*levels, levels[-1] ** 2 / levels[-2]] if levels[-1] else list(levels[:-1])
    with quiet_double(draw), _Double():
        scheduler = _scheduler(name, options, known, known[-1] / 2 if levels[-1] else 0.0, kind)
        if hasattr(scheduler, "noise_sampler"):
            scheduler.noise_sampler = draw
        calls = _calls(name, scheduler, levels)
        corrected = corrected and levels[-1] > 0  # into 0 there is nothing to correct with
        if corrected:
            calls.append((levels[-1], None))

        def scale(sigma: float) -> float:
            return (1 + sigma * sigma) ** 0.5 if variance_preserving else 1.0

        times = iter(scheduler.timesteps)
        module = sys.modules[type(scheduler).__module__]
        x = x / scale(levels[0])
        drawing = hasattr(module, "randn_tensor")
        with replaced(module, "randn_tensor", lambda *_, **__: draw()) if drawing else nullcontext():
            for sigma, index in calls:
                if exact is not None and index is not None:
                    x = exact(sigma) / scale(sigma)
                seen = x * scale(sigma)
                output = _output(name, kind, seen, model(seen, torch.tensor(sigma)), sigma)
                old, x = x, scheduler.step(output, next(times), x, return_dict=False, **(each or {}))[0]
                if exact is not None and index is not None and hasattr(scheduler, "last_sample"):
                    scheduler.last_sample = old  # the exact one, not what a corrector made of it
        if corrected:
            return scheduler.last_sample * scale(levels[-1])
        return x * scale(levels[-1])
