"""Classifier-free guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from attrs import Attribute, field, frozen

from kdiff_core.errors import DenoiserError, ParameterError
from kdiff_core.state import flatten, rebuild


class Guided(NamedTuple):
    """The outputs of a guided denoiser, each like the state it was given."""

    denoised: Any
    cond: Any
    uncond: Any


def _finite(instance: object, attribute: Attribute[float], value: float) -> None:
    if not math.isfinite(value):
        raise ParameterError(f"cfg: {attribute.name}={value} must be finite; 1 is no guidance")


@frozen(eq=False)
class CFG:
    """Classifier-free guidance: ``denoised = u + scale (c - u)``.

    Ho & Salimans 2022, arXiv:2207.12598, eq. 6. ``c`` is the denoiser's output under the given
    conditions, ``u`` its output under `uncond`; in the paper's notation ``scale = 1 + w``. The denoiser's
    other attributes (``path``, ``sigma_min``, ``sample_shape``, ...) are found on this object too.

    Args:
        denoiser: The denoiser to guide.
        scale: Finite. 1 is the conditional output, 0 the unconditional one; above 1 is guidance.
        uncond: Conditions that replace those of the same name in the unconditional call; the others stay.
            A tensor of batch size 1 serves every sample. Default, for a denoiser with ``classes``: the
            label -1 ("any") for all.

    Raises:
        ParameterError: `scale` is not finite, or `uncond` is missing and cannot be guessed.
    """

    denoiser: Any
    scale: float = field(default=2.0, converter=float, validator=_finite)
    uncond: Mapping[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        if not callable(self.denoiser):
            raise ParameterError(f"cfg: denoiser={self.denoiser!r} cannot be called; pass a denoiser")
        if self.uncond is None and getattr(self.denoiser, "classes", None) is None:
            raise ParameterError(
                "cfg: the denoiser has no classes, so its unconditional conditions are not known; "
                "pass uncond={...}, the conditions that stand for none (an empty prompt's embedding, ...)"
            )

    def predict(self, x: Any, sigma: torch.Tensor, **cond: Any) -> Guided:
        """Return the guided, the conditional and the unconditional output; two calls of the denoiser.

        Args:
            x: State, ``(B, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            **cond: Conditions.

        Raises:
            DenoiserError: The two outputs are not of one structure and shape.
        """
        size = len(sigma)
        given = self.denoiser(x, sigma, **cond)
        without = self.denoiser(x, sigma, **{**cond, **self._replaced(cond, size, sigma.device)})
        return Guided(_guide(without, given, self.scale), given, without)

    def __call__(self, x: Any, sigma: torch.Tensor, **cond: Any) -> Any:
        """Return the guided output, like `x`. With ``scale = 1`` it is one call, the conditional one."""
        if self.scale == 1:
            return self.denoiser(x, sigma, **cond)
        return self.predict(x, sigma, **cond).denoised

    def _replaced(self, cond: Mapping[str, Any], size: int, device: torch.device) -> dict[str, Any]:
        """Return the conditions that the unconditional call replaces, with the batch's size."""
        if self.uncond is None:
            return {"label": torch.full((size,), -1, dtype=torch.int64, device=device)}
        return {name: _expand(value, cond.get(name), size) for name, value in self.uncond.items()}

    def __getattr__(self, name: str) -> Any:
        """Find everything else on the denoiser."""
        # Neither private names nor `denoiser` itself, which is missing while a copy is being built.
        if name.startswith("_") or name in ("denoiser", "scale", "uncond"):
            raise AttributeError(name)
        return getattr(self.denoiser, name)


def _expand(value: Any, given: Any, size: int) -> Any:
    """Repeat a tensor of batch size 1 where the condition that it replaces has one row for each sample."""
    if not isinstance(value, torch.Tensor) or not isinstance(given, torch.Tensor):
        return value
    if value.ndim == 0 or value.ndim != given.ndim or len(value) != 1 or len(given) != size:
        return value
    return value.expand(size, *value.shape[1:])


def _guide(without: Any, given: Any, scale: float) -> Any:
    """Return ``without + scale (given - without)`` of two states, tensors or nests of them."""
    low, high = flatten(without), flatten(given)
    if [leaf.shape for leaf in low] != [leaf.shape for leaf in high]:
        raise DenoiserError(
            "cfg: the denoiser's conditional and unconditional outputs differ in shape: "
            f"{[tuple(leaf.shape) for leaf in high]} and {[tuple(leaf.shape) for leaf in low]}"
        )
    # One kernel; by its definition exactly `given` at scale 1 and `without` at scale 0.
    return rebuild(given, [torch.lerp(u, c, scale) for u, c in zip(low, high, strict=True)])
