"""A sampler as ComfyUI's sampler function, and as its ``KSAMPLER``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_noise, get_sampler

from .host_model import module
from .run import HOST_NOISE, sample

DEFAULT_NOISE = "keyed"


def sampler_function(sampler: Any, /, *, noise: Any = DEFAULT_NOISE, **options: Any) -> Callable[..., Tensor]:
    """Return a sampler as a function by ComfyUI's contract.

    ``f(model, x, sigmas, extra_args=None, callback=None, disable=None, **extra_options)`` gives every model
    call all of `extra_args`; calls ``callback(dict)`` once a step, with the keys ``i``, ``x``, ``denoised``,
    ``sigma`` and ``sigma_hat``; lets every exception through; and returns `x` where there are fewer than two
    levels. What the model or the callback writes into its ``x`` is taken over, and what the callback writes
    into ``denoised``: the step goes on as if it had begun with that state and that output. Options that a run
    is given come before those given here.

    Args:
        sampler: A name, or a sampler.
        noise: Name of a noise source of kdiff, seeded by ComfyUI's seed and keyed by the place in the batch;
            ``"comfyui"``, one generator on the state's device; or a source.
        **options: Of the name.

    Raises:
        UnknownNameError: No plugin offers the sampler, or the noise.
        ParameterError: An option is unknown or refused.
    """
    get_sampler(sampler, **options)  # a wrong option is refused here and not in a run
    _check_noise(noise)

    def function(
        model: Callable[..., Any],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
        **extra_options: Any,
    ) -> Tensor:
        given = {**options, **extra_options}
        source = given.pop("noise", noise)
        found = get_sampler(sampler, **given)
        return sample(found, model, x, sigmas, extra_args, callback, disable, source)

    name = sampler if isinstance(sampler, str) else type(sampler).__name__
    function.__name__ = function.__qualname__ = f"sample_{name}"
    function.__doc__ = f"kdiff's sampler {sampler!r}, by ComfyUI's contract."
    return function


def _check_noise(noise: Any) -> None:
    if isinstance(noise, str) and noise != HOST_NOISE:
        get_noise(noise)


def as_ksampler(
    sampler: Any,
    /,
    *,
    noise: Any = DEFAULT_NOISE,
    inpaint_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Return a sampler as a ``comfy.samplers.KSAMPLER``, what ComfyUI's SAMPLER sockets carry.

    Args:
        sampler: A name, or a sampler.
        noise: As of `sampler_function`.
        inpaint_options: ComfyUI's, such as ``{"random": True}``.
        **options: Of the name.

    Raises:
        CapabilityError: This Python is not ComfyUI's.
        UnknownNameError: No plugin offers the sampler, or the noise.
        ParameterError: An option is unknown or refused.
    """
    made, kind = get_sampler(sampler, **options), module("comfy.samplers").KSAMPLER
    found = kind(sampler_function(sampler, noise=noise, **options), {}, dict(inpaint_options or {}))
    found.kdiff = (made, noise, dict(inpaint_options or {}))
    return found


def sampler_of(ksampler: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the sampler that `as_ksampler` was given, its noise and its options of inpainting.

    Raises:
        ParameterError: It is another's SAMPLER.
    """
    found = getattr(ksampler, "kdiff", None)
    if found is None:
        raise ParameterError(
            f"{type(ksampler).__name__} is no sampler of kdiff, and a modifier of kdiff changes those alone; "
            "connect a node of the category kdiff/samplers"
        )
    sampler, noise, inpaint_options = found
    return sampler, noise, dict(inpaint_options)
