"""ComfyUI's model as a denoiser: its path, its noise process, its unconditional output."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import CapabilityError
from kdiff_core.lookup import get_process
from kdiff_core.protocols import PathName, Process

from ..wrappers import table_of

# A flow model's table is the line of its times, shifted, to this relative error.
_LINE = 1e-4


def module(name: str) -> Any:
    """Return a module of ComfyUI's.

    Raises:
        CapabilityError: This Python is not ComfyUI's.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CapabilityError(f"{name} cannot be imported: this is of use inside ComfyUI only") from error


def model_sampling_of(model: Any) -> Any:
    """Return the model sampling of what ComfyUI gives a sampler function for a model.

    Raises:
        CapabilityError: It has none, so that nothing is known of its noise levels.
    """
    guider = getattr(model, "inner_model", None)
    patcher = getattr(guider, "model_patcher", None)
    if patcher is not None:
        return patcher.get_model_object("model_sampling")
    found = getattr(getattr(guider, "inner_model", None), "model_sampling", None)
    if found is None:
        raise CapabilityError(
            f"{type(model).__name__} has no inner_model.inner_model.model_sampling: kdiff cannot tell a flow "
            "model from another; call the sampler with the model that ComfyUI hands to sampler functions"
        )
    return found


def path_of(model_sampling: Any) -> PathName:
    """Return the path of a model: "flow" where its model sampling is ComfyUI's ``CONST``."""
    # By name: a sampler function needs nothing of comfy, and a reloaded module has other classes.
    return "flow" if any(kind.__name__ == "CONST" for kind in type(model_sampling).__mro__) else "ve"


def process_of(model_sampling: Any) -> Process | None:
    """Return the noise process of a model's ``sigmas``, a rising table.

    Returns:
        None where the table does not rise, or on flow is no shifted line: kdiff has no such process.
    """
    table = torch.as_tensor(model_sampling.sigmas).detach().cpu().double()
    size, flow = len(table), path_of(model_sampling) == "flow"
    if size < 2 or not (table[0] > 0 and (table.diff() > 0).all()):
        return None
    if not flow:
        return table_of(1 / (1 + table**2))
    line = torch.arange(1, size + 1, dtype=torch.float64, device="cpu") / size
    middle, level = float(line[size // 2 - 1]), float(table[size // 2 - 1])
    shift = level * (1 - middle) / (middle * (1 - level))
    if not torch.allclose(shift * line / (1 + (shift - 1) * line), table, rtol=_LINE, atol=0):
        return None
    process: Process = get_process("flow", shift=shift, steps=size)
    return process


class HostModel:
    """A model as ComfyUI hands it to a sampler function, as a guided denoiser.

    Args:
        model: ``model(x, sigma, **extra_args)``, which returns the denoised state.
        extra_args: What ComfyUI wants every call to be given.

    Attributes:
        path: The model's path.
    """

    def __init__(self, model: Callable[..., Any], extra_args: Mapping[str, Any]) -> None:
        self.model, self.extra_args = model, dict(extra_args)
        self.sampling = model_sampling_of(model)
        self.path: PathName = path_of(self.sampling)
        self._parts: dict[str, Any] = {}

    @cached_property
    def process(self) -> Process | None:
        """The model's noise process."""
        return process_of(self.sampling)

    def __call__(self, x: Tensor, sigma: Tensor) -> Any:
        """Return the denoised state."""
        return self.model(x, sigma, **self.extra_args)

    def predict(self, x: Tensor, sigma: Tensor) -> Prediction:
        """Return the guided and the unconditional output; the latter is seen by a post-CFG hook.

        Raises:
            CapabilityError: The guider calls no such hook.
        """
        self._parts.clear()
        denoised = self.model(x, sigma, **self._hooked)
        uncond = self._parts.get("uncond_denoised")
        if uncond is None:
            raise CapabilityError(
                "CFG++ needs the unconditional output, which this guider does not show to post-CFG "
                "functions; use a guider with a negative prompt (CFGGuider, KSampler)"
            )
        return Prediction(denoised, self._parts.get("cond_denoised"), uncond)

    @cached_property
    def _hooked(self) -> dict[str, Any]:
        """`extra_args` with a hook in a copy of the model options: the host's own lists stay as they are."""
        given = self.extra_args.get("model_options", {})
        options = {key: list(v) if isinstance(v, list) else v for key, v in given.items()}
        set_hook = module("comfy.model_patcher").set_model_options_post_cfg_function
        options = set_hook(options, self._note, disable_cfg1_optimization=True)
        return {**self.extra_args, "model_options": options}

    def _note(self, args: Mapping[str, Any]) -> Any:
        self._parts.update(args)
        return args["denoised"]
