"""What all guidance shares: it wraps a denoiser, is one, and acts between two noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core import Path, Prediction
from kdiff_core.errors import ParameterError
from kdiff_core.parameters import level
from kdiff_core.path import as_path
from kdiff_core.state import check_output, flatten, rebuild, wide

from .vectors import column

Cond = Mapping[str, Any]


def denoises(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Accept what can be called."""
    if not callable(value):
        name = type(instance).__name__
        raise ParameterError(f"{name}: {attribute.name}={value!r:.60} cannot be called; pass a denoiser")


def _above_low(instance: Guidance, attribute: Attribute[Any], value: float) -> None:
    if not value > instance.sigma_low:
        raise ParameterError(
            f"{type(instance).__name__}: sigma_high={value} is not above sigma_low={instance.sigma_low}; "
            "guidance acts between them"
        )


@frozen(eq=False)
class Guidance:
    """A denoiser made of another one's outputs, tensor by tensor and each sample alone.

    A kind of guidance defines `evaluate`, which calls the denoiser, and `rule`, its formula. The denoiser's
    other attributes (``path``, ``sigma_min``, ``sample_shape``, ...) are found on this object too.

    Args:
        denoiser: The denoiser to guide.
        sigma_low: Level at and below which there is no guidance.
        sigma_high: Level above which there is none (Kynkaanniemi et al. 2024, arXiv:2404.07724). Where an
            end is given, each call on a GPU waits for its levels.

    Raises:
        ParameterError: The denoiser cannot be called, or the levels are no interval.
    """

    denoiser: Any = field(validator=denoises)
    sigma_low: float = field(default=0.0, converter=float, validator=level, kw_only=True)
    sigma_high: float = field(default=math.inf, converter=float, validator=[level, _above_low], kw_only=True)

    @property
    def neutral(self) -> bool:
        """Whether the parameters ask for no guidance: then only what is beneath is called."""
        return False

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """Call the denoiser.

        Args:
            x: State.
            sigma: Levels, ``(B,)``.
            cond: Conditions.
            in_parts: Whether the conditional and unconditional outputs are asked for.

        Returns:
            The outputs without this guidance, and the states that `rule` combines.
        """
        raise NotImplementedError

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The formula, on one tensor of the state.

        Args:
            x: State, in float32 or float64.
            sigma: Levels, ``(B, 1, ...)``.
            outputs: What `evaluate` said.
        """
        raise NotImplementedError

    def parts(self, x: Any, sigma: Tensor, cond: Cond) -> Prediction:
        """The outputs of the guided denoiser beneath."""
        found = self.denoiser.predict(x, sigma, **cond)
        return Prediction(found.denoised, found.cond, found.uncond)

    def unguided(self, x: Any, sigma: Tensor, cond: Cond) -> Prediction:
        """The outputs where there is no guidance: those beneath, or three times the only one."""
        if has_parts(self.denoiser):
            return self.parts(x, sigma, cond)
        output = self.denoiser(x, sigma, **cond)
        return Prediction(output, copied(output), copied(output))

    def __call__(self, x: Any, sigma: Tensor, **cond: Any) -> Any:
        """Return the guided output, like `x`; without guidance it is that of the denoiser beneath."""
        if self.neutral or self._nowhere(sigma):
            return self.denoiser(x, sigma, **cond)
        return self._guided(x, sigma, cond, in_parts=False).denoised

    def _predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        return self.unguided(x, sigma, cond) if self._nowhere(sigma) else self._guided(x, sigma, cond, True)

    def _guided(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> Prediction:
        given = flatten(x)
        plain, outputs = self.evaluate(x, sigma, cond, in_parts)
        if self.neutral:
            return plain._replace(denoised=copied(plain.denoised))
        found = [check_output(output, x, given) for output in outputs]
        leaves = []
        for leaf, *each in zip(given, *found, strict=True):
            kind = wide(leaf)
            level = column(sigma.to(kind), leaf)
            guided = self.rule(leaf.to(kind), level, [output.to(kind) for output in each])
            leaves.append(guided.to(leaf.dtype))
        inside = self._inside(sigma)
        if inside is not None:
            unguided = check_output(plain.denoised, x, given)
            leaves = [torch.where(column(inside, g), g, u) for g, u in zip(leaves, unguided, strict=True)]
        return plain._replace(denoised=rebuild(x, leaves))

    def _inside(self, sigma: Tensor) -> Tensor | None:
        """Which samples are guided; None: all."""
        if self.sigma_low == 0 and self.sigma_high == math.inf:
            return None
        return (sigma > self.sigma_low) & (sigma <= self.sigma_high)

    def _nowhere(self, sigma: Tensor) -> bool:
        inside = self._inside(sigma)
        return inside is not None and not bool(inside.any())

    @property
    def _path(self) -> Path:
        return as_path(getattr(self.denoiser, "path", "ve"))

    def __getattr__(self, name: str) -> Any:
        """Find everything else on the denoiser."""
        # Neither private names nor the fields, which are missing while a copy is being built.
        if name.startswith("_") or any(name == each.name for each in type(self).__attrs_attrs__):
            raise AttributeError(name)
        return getattr(self.denoiser, name)


@frozen(eq=False)
class Correction(Guidance):
    """Guidance that changes the output of a denoiser, guided or not.

    It has `predict` where the denoiser has: its conditional and unconditional outputs are those beneath.
    """

    @property
    def predict(self) -> Callable[..., Prediction]:
        """The changed output beside the conditional and unconditional ones, where the denoiser has them."""
        if not has_parts(self.denoiser):
            raise AttributeError("predict")
        return self._predict

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """Call the denoiser; the rule sees its output."""
        if in_parts:
            found = self.parts(x, sigma, cond)
            return found, [found.denoised]
        output = self.denoiser(x, sigma, **cond)
        return Prediction(output, output, output), [output]


def has_parts(denoiser: Any) -> bool:
    """Whether a denoiser is a guided one."""
    return callable(getattr(denoiser, "predict", None))


def copied(state: Any) -> Any:
    """A state in memory of its own."""
    return rebuild(state, [leaf.clone() for leaf in flatten(state)])
